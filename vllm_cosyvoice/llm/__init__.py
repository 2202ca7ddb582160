"""The language model: all that this package knows of vLLM's inside is in this folder.

What it relies on there is tested by `tests/test_vllm_contract.py`, which says what a new vLLM has changed.
"""
