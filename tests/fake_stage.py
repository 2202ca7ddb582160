"""Not a stage: it stands in for each of them, and fails as told.

LIVES in the environment says what each of its lives is, as JSON: {"decode-0": ["die", "live"]}; the last one is for all
further ones. "die": before it is ready; "deaf": ready, and answers no ping; "mortal": ready, and dies at once; "live";
"parent": it lives, and has started a process of its own.
"""

import asyncio
import json
import os
import sys

from server.processes.channel import Channel
from server.processes.messages import Ping, Pong, Ready
from server.processes.process import Settings


async def run(settings: Settings, channel: Channel) -> None:
    lives = json.loads(os.environ["LIVES"]).get(settings.name, ["live"])
    born = settings.run_directory / f"{settings.name}.born"
    with born.open("a") as file:
        file.write(".")
    (settings.run_directory / f"{settings.name}.environment").write_text(json.dumps(dict(os.environ)))
    life = lives[min(born.stat().st_size, len(lives)) - 1]
    if life == "die":
        sys.exit(3)
    if life == "parent":
        await asyncio.create_subprocess_exec("sleep", "600")
    channel.send(settings.supervisor, Ready(settings.address))
    await asyncio.sleep(0.3)  # until that is sent
    if life == "mortal":
        os._exit(4)
    while True:
        message = await channel.receive()
        if isinstance(message, Ping) and life != "deaf":
            channel.send(message.reply_to, Pong(message.nonce, settings.address, {}))
