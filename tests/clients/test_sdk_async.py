"""The asyncio client against a real daemon: what differs from the blocking one."""

from __future__ import annotations

import asyncio
import io
from typing import Any, Awaitable, Callable, List

import latentd
import pytest
from conftest import LONG, SMALL, SOON, Daemon

Body = Callable[[latentd.AsyncClient], Awaitable[Any]]


@pytest.fixture
def with_client(daemon: Daemon) -> Callable[[Body], Any]:
    """Runs a coroutine function with a connected client."""

    def start(body: Body) -> Any:
        async def main() -> Any:
            async with latentd.AsyncClient(daemon.socket, timeout=SOON) as client:
                return await body(client)

        return asyncio.run(main())

    return start


async def last_event(client: latentd.AsyncClient, job: str) -> str:
    return [event.type async for event in await client.events(job, timeout=SOON)][-1]


def test_a_picture_is_the_one_the_blocking_client_gets(
    with_client: Callable[[Body], Any], client: latentd.Client
) -> None:
    result = with_client(lambda client: client.txt2img(**SMALL))
    assert result.images[0].png == client.txt2img(**SMALL).images[0].png


def test_callbacks_may_be_coroutines(with_client: Callable[[Body], Any]) -> None:
    steps: List[int] = []
    previews: List[latentd.Preview] = []

    async def on_progress(progress: latentd.Progress) -> None:
        await asyncio.sleep(0)
        steps.append(progress.step)

    async def body(client: latentd.AsyncClient) -> None:
        await client.txt2img(**{**SMALL, "steps": 6}, on_progress=on_progress, on_preview=previews.append)

    with_client(body)
    assert steps == sorted(steps) and steps[-1] == 6
    assert previews and previews[-1].image.data


def test_many_at_once(with_client: Callable[[Body], Any]) -> None:
    async def body(client: latentd.AsyncClient) -> None:
        jobs = (client.txt2img(**{**SMALL, "seed": seed}) for seed in range(16))
        assert [result.images[0].seed for result in await asyncio.gather(*jobs)] == list(range(16))

    with_client(body)


def test_cancelling_the_task_cancels_the_job(with_client: Callable[[Body], Any]) -> None:
    async def body(client: latentd.AsyncClient) -> None:
        first = asyncio.get_running_loop().create_future()

        def on_progress(progress: latentd.Progress) -> None:
            if not first.done():
                first.set_result(progress.job)

        task = asyncio.ensure_future(client.txt2img(**LONG, on_progress=on_progress))
        job = await asyncio.wait_for(first, SOON)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await last_event(client, job) == "cancelled"

    with_client(body)


def test_a_timeout_cancels_the_job(with_client: Callable[[Body], Any]) -> None:
    async def body(client: latentd.AsyncClient) -> None:
        events = await client.events(timeout=SOON)
        with pytest.raises(latentd.Timeout):
            await client.txt2img(**LONG, timeout=0.2)
        async for event in events:
            if event.is_last:
                assert event.type == "cancelled"
                break

    with_client(body)


def test_errors(with_client: Callable[[Body], Any]) -> None:
    async def body(client: latentd.AsyncClient) -> None:
        with pytest.raises(latentd.InvalidParams, match="steps"):
            await client.call("txt2img", {**SMALL, "stepz": 3})
        with pytest.raises(latentd.NotFound):
            await client.jobs.wait("no-such-job")
        await client.ping()

    with_client(body)


def test_the_other_methods(with_client: Callable[[Body], Any]) -> None:
    async def body(client: latentd.AsyncClient) -> None:
        assert (await client.initialize("test"))["protocol"] == 1
        assert await client.status()
        assert (await client.api_info())["methods"]
        job = await client.jobs.submit("txt2img", SMALL)
        result = await client.jobs.wait(job)
        assert result.job == job
        assert (await client.image_info(result.images[0])).infotext == result.images[0].infotext
        assert (await client.jobs.get(job))["state"] == "finished"
        assert job in [entry["job"] for entry in await client.jobs.list()]
        name = (await client.library.list("checkpoint"))[0]["name"]
        assert (await client.library.get("checkpoint", name))["name"] == name
        assert await client.library.default_checkpoint()
        await client.library.rescan()
        await client.models.load(name, timeout=SOON)
        await client.models.pin(name)
        assert name in str(await client.models.loaded())
        await client.models.pin(name, False)
        await client.models.unload(name)

    with_client(body)


def test_prompts_regions_and_styles(with_client: Callable[[Body], Any], client: latentd.Client) -> None:
    mask = latentd.Image(1, 2, raw=b"\0\xff", channels=1)
    buffer = io.BytesIO()
    mask.pil().save(buffer, "PNG")

    async def body(client: latentd.AsyncClient) -> List[latentd.Image]:
        told = await client.prompt_tokens("a [red|blue] circle", steps=2)
        assert [text.text for text in told.parts[0].texts] == ["a red circle", "a blue circle"]
        saved = await client.save_style("Async", prompt="{prompt}, sharp")
        assert saved in (await client.styles()).styles
        fields = {**SMALL, "prompt": ["a red circle", "a blue square"], "styles": ["Async"], "batch_size": 2}
        blob = await client.put_blob(buffer.getvalue())
        drawn = [
            await client.txt2img(**fields, regions=[{"mask": given, "prompt": "sand"}]) for given in (mask, blob)
        ]
        assert await client.delete_style("Async") == saved
        assert saved not in (await client.styles()).styles
        for images in zip(drawn[0].images, drawn[1].images):
            assert images[0].image.tobytes() == images[1].image.tobytes()
        return drawn[0].images

    first, second = with_client(body)
    region = {"mask": mask, "prompt": "sand"}
    written = {**SMALL, "prompt": "a blue square, sharp", "seed": SMALL["seed"] + 1}
    again = client.txt2img(**written, regions=[region]).images[0]
    assert again.image.tobytes() == second.image.tobytes() != first.image.tobytes()


def test_not_connected(daemon: Daemon) -> None:
    async def main() -> None:
        client = latentd.AsyncClient(daemon.socket)
        with pytest.raises(RuntimeError, match="connect"):
            await client.ping()
        await client.connect()
        await client.ping()
        await client.close()
        with pytest.raises(latentd.ConnectionClosed):
            await client.ping()

    asyncio.run(main())
