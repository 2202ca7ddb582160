"""The language model. Only this folder depends on vLLM's internals.

`tests/test_vllm_contract.py` tests these dependencies and shows what a new version of vLLM has changed.
"""
