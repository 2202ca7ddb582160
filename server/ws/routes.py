"""The route of the WebSocket that speaks text while it is being written."""

from fastapi import APIRouter
from starlette.websockets import WebSocket

from server.arguments import Arguments
from server.http.speech_body import OPENAI_MODELS, check_model, voice_of
from server.http.websocket import Connection, Connections
from server.ws.messages import SessionConfig
from server.ws.session import Session
from vllm_cosyvoice.engine import Engine
from vllm_cosyvoice.recording import Recording


def router(engine: Engine, connections: Connections, model_id: str, arguments: Arguments) -> APIRouter:
    """Return the route, for the model called `model_id`."""
    routes = APIRouter()

    async def check(config: SessionConfig) -> str | Recording:
        check_model(config.model, (model_id, *OPENAI_MODELS))
        return await voice_of(config, arguments.ref_audio_hosts)

    @routes.websocket("/v1/audio/speech/stream")
    async def speech_stream(websocket: WebSocket) -> None:
        async def session(connection: Connection) -> None:
            session_id, longest_text = websocket.state.request_id, arguments.max_input_chars
            await Session(connection, engine, session_id, check, longest_text, connections.leaving).run()

        await connections.serve(websocket, session)

    return routes
