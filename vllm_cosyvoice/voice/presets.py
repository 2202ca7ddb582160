"""Converts a model's preset speakers to voices."""

from msgspec.structs import replace

from vllm_cosyvoice.checkpoint import ModelDirectory, PresetSpeaker
from vllm_cosyvoice.recording import Voice, saved_key


def preset_voices(model: ModelDirectory) -> dict[str, Voice]:
    """The voices of `model.preset_speakers()`, by name."""
    speakers = model.preset_speakers()
    transcripts = dict.fromkeys(speakers, "")
    if any(speaker.transcript for speaker in speakers.values()):
        from vllm_cosyvoice.text.tokenizer import load_tokenizer  # late: only a few models need it here

        tokenizer = load_tokenizer(model.tokenizer, model.family.special_tokens)
        for name, speaker in speakers.items():
            transcripts[name] = tokenizer.decode(speaker.transcript, skip_special_tokens=False)
    return {name: _voice(name, speaker, transcripts[name]) for name, speaker in speakers.items()}


def _voice(name: str, speaker: PresetSpeaker, transcript: str) -> Voice:
    voice = Voice.preset(name, speaker.embedding.numpy())
    if not len(speaker.speech_tokens):
        return voice
    tokens, mel = speaker.speech_tokens.numpy(), speaker.mel.numpy()
    key = saved_key(voice.key, transcript, tokens, mel)
    return replace(voice, transcript=transcript, speech_tokens=tokens, mel=mel, key=key)
