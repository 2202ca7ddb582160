"""Not a stage: a process that the supervisor takes for one, and that fails as told: `python -m tests.fake_stage NAME`.

LIVES in the environment says what each of its lives is, as JSON: {"decode-0": ["die", "live"]}; the last one is for all
further ones. "die": before it is ready; "deaf": ready, and answers no ping; "mortal": ready, and dies at once; "live".
"""

import asyncio
import json
import os
import sys

from server.channel import Channel
from server.messages import Ping, Pong, Ready
from server.process import Settings


async def main() -> None:
    settings = Settings.read(sys.stdin.buffer.readline())
    lives = json.loads(os.environ["LIVES"]).get(settings.name, ["live"])
    born = settings.run_directory / f"{settings.name}.born"
    with born.open("a") as file:
        file.write(".")
    life = lives[min(born.stat().st_size, len(lives)) - 1]
    if life == "die":
        sys.exit(3)
    channel = Channel(settings.address, settings.secret)
    channel.send(settings.supervisor, Ready(settings.address))
    await asyncio.sleep(0.3)  # until that is sent
    if life == "mortal":
        os._exit(4)
    while True:
        message = await channel.receive()
        if isinstance(message, Ping) and life != "deaf":
            channel.send(message.reply_to, Pong(message.nonce, settings.address, {}))


if __name__ == "__main__":
    asyncio.run(main())
