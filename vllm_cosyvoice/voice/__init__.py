"""Voices: encodes prompt audio as conditions for the networks, and stores recordings on disk."""

from vllm_cosyvoice.recording import Voice, voice_key
from vllm_cosyvoice.voice.audio import AudioError, load_audio
from vllm_cosyvoice.voice.encoder import VoiceEncoder
from vllm_cosyvoice.voice.prompt import TranscriptError
from vllm_cosyvoice.voice.store import UnknownVoice, VoiceDirectory, VoiceRefused

__all__ = [
    "AudioError",
    "TranscriptError",
    "UnknownVoice",
    "Voice",
    "VoiceDirectory",
    "VoiceEncoder",
    "VoiceRefused",
    "load_audio",
    "voice_key",
]
