"""The endings of file names, which tell a name from the end of a sentence."""

EXTENSION = (
    r"(?:pdf|docx?|xlsx?|pptx?|txt|md|csv|json|jsonl|xml|ya?ml|toml|ini|cfg|conf|env|log|html?|css|jsx?|tsx?|py|ipynb|java|cpp|hpp"
    r"|rs|go|rb|php|sh|bat|exe|dll|so|zip|tar|gz|7z|rar|jpe?g|png|gif|svg|webp|bmp|mp3|mp4|wav|flac|ogg|mov|avi|mkv|sql|db"
    r"|lock|vue|kt|swift|onnx|pt|safetensors|gguf)"
)
