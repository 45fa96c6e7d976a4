"""The client for programs on asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from contextlib import suppress
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Type,
    TypeVar,
    Union,
)

from . import calls
from .address import check_peer, check_place, no_daemon, socket_path
from .backlog import Backlog
from .connection import EVENTS, Owner
from .errors import ConnectionClosed, LatentdError, Misuse, ProtocolError, Timeout, from_wire
from .protocol import MAX_MESSAGE_BYTES, Protocol, Response
from .plugins import PluginEntry, PluginList, PluginSchema
from .prompts import PromptTokens, StyleEntry, StyleList
from .types import Blob, Event, ImageInfo, ImageLike, LibraryEvent, MergeResult, Preview, Progress, Result, UpscaleResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .prompts import PromptTokensFields
    from .types import Img2ImgFields, MergeFields, OutpaintFields, Txt2ImgFields, UpscaleFields

T = TypeVar("T")
_READ_BYTES = 256 * 1024
_CLOSE_SECONDS = 5.0


class AsyncClient:
    """A connection to the daemon.

    >>> async with AsyncClient() as client:
    ...     result = await client.txt2img("a lighthouse at dusk", seed=7)
    ...     result.images[0].save("lighthouse.png")

    Any number of tasks of one event loop may use one client at the same time; on another loop, and so in another thread,
    it raises :class:`~latentd.Misuse`. Callbacks run in the task that
    called the method they were given to, one at a time, and may be functions or coroutine functions; one that
    raises cancels the job, and so does cancelling the task.

    The parameters are those of :class:`latentd.Client`.
    """

    def __init__(
        self,
        path: Optional[Union[str, "os.PathLike[str]"]] = None,
        *,
        timeout: Optional[float] = 30.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.path = socket_path(path)
        self.timeout = timeout
        self._protocol = Protocol(max_message_bytes)
        self._replies: Dict[int, asyncio.Future[Any]] = {}
        # Weak: an iteration over events that nobody ends must not collect them for ever.
        self._listeners: weakref.WeakSet[_Listener] = weakref.WeakSet()
        self._ended: Optional[Callable[[], LatentdError]] = None
        self._farewell = "the daemon ended the connection"
        self._owner = Owner()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._writer: Optional[asyncio.StreamWriter] = None
        self._reader_task: Optional[asyncio.Task[None]] = None

    async def connect(self) -> AsyncClient:
        """Connects; ``async with`` does it too. Returns the client."""
        self._owner.check()
        if self._ended is not None:
            raise self._ended()
        if self._loop is not None:
            raise Misuse("this client is connected already; make one for each connection")
        self._loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            check_place(self.path)
            await self._loop.sock_connect(connection, self.path)
            check_peer(connection, self.path)
            reader, self._writer = await asyncio.open_unix_connection(sock=connection)
        except BaseException as error:
            connection.close()
            self._loop = None
            if isinstance(error, OSError) and not isinstance(error, LatentdError):
                raise no_daemon(self.path, error) from error
            raise
        self._reader_task = asyncio.ensure_future(self._read(reader))
        return self

    async def close(self) -> None:
        """Ends the connection. Jobs go on in the daemon; their results can be fetched by another client."""
        if self._loop is not None:
            self._check_place()
        self._end(lambda: ConnectionClosed("this client was closed"))
        if self._reader_task is None or self._writer is None:
            return
        done, _ = await asyncio.wait([self._reader_task], timeout=_CLOSE_SECONDS)
        if not done:
            # The daemon does not take what is still to be sent.
            self._writer.transport.abort()
            await asyncio.wait([self._reader_task])

    async def __aenter__(self) -> AsyncClient:
        return await self.connect()

    async def __aexit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    @property
    def jobs(self) -> AsyncJobs:
        """Pictures that are drawn while the caller does something else."""
        return AsyncJobs(self)

    @property
    def library(self) -> AsyncLibrary:
        """The model files in the folders the daemon watches."""
        return AsyncLibrary(self)

    @property
    def models(self) -> AsyncModels:
        """What is in memory, and new checkpoints of old ones."""
        return AsyncModels(self)

    async def call(self, method: str, params: Optional[Mapping[str, Any]] = None) -> Any:
        """Calls any method by name, such as one that a plugin adds, and returns what the daemon answers."""
        return await self._run(calls.generic(method, params))

    async def ping(self) -> None:
        """Returns once the daemon has answered."""
        await self._run(calls.ping())

    async def initialize(self, name: str, version: str = "") -> Dict[str, Any]:
        """Tells the daemon who calls; returns its version, protocol, capabilities and limits. Optional."""
        return await self._run(calls.initialize(name, version))

    async def status(self) -> Dict[str, Any]:
        """Devices, memory, resident models, the queue, and how much lies on the disk (`storage`)."""
        return await self._run(calls.status())

    async def api_info(self) -> Dict[str, Any]:
        """Every method with its JSON Schemas."""
        return await self._run(calls.api_info())

    async def shutdown(self) -> None:
        """Asks the daemon to finish what runs and exit."""
        await self._run(calls.shutdown())

    async def txt2img(
        self,
        prompt: Union[str, List[str]],
        *,
        on_progress: Optional[Callable[[Progress], Union[Awaitable[object], object]]] = None,
        on_preview: Optional[Callable[[Preview], Union[Awaitable[object], object]]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[Txt2ImgFields],
    ) -> Result:
        """Draws pictures of ``prompt`` and waits for them. A list has one text for each of them, ``batch_size * n_iter``.

        ``fields`` are those of :class:`~latentd.Txt2ImgFields`; what is left out has the daemon's default.
        Leaving this call by an exception (``timeout`` seconds have passed, the task was cancelled, a callback
        raised) cancels the job.
        """
        params = calls.txt2img_params(prompt, fields, on_preview is not None)
        job = await self._submit(calls.submit("txt2img", params, None))
        try:
            if on_progress is None and on_preview is None:
                return await self._run_for(calls.wait(job), timeout)
            return await self._follow(calls.wait(job), job, on_progress, on_preview, timeout)
        except BaseException:
            self._cancel_unheard(job)
            raise

    async def img2img(
        self,
        init_images: Union[ImageLike, List[ImageLike]],
        prompt: Union[str, List[str]] = "",
        *,
        on_progress: Optional[Callable[[Progress], Union[Awaitable[object], object]]] = None,
        on_preview: Optional[Callable[[Preview], Union[Awaitable[object], object]]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[Img2ImgFields],
    ) -> Result:
        """Draws from pictures, all of each or what ``mask`` says, and waits for what comes of them.

        ``init_images`` is a picture for all that are drawn, or a list with one for each of a batch or for each of them.

        ``fields`` are those of :class:`~latentd.Img2ImgFields`; what is left out has the daemon's default.
        Leaving this call by an exception (``timeout`` seconds have passed, the task was cancelled, a callback
        raised) cancels the job.
        """
        params = calls.img2img_params(init_images, prompt, fields, on_preview is not None)
        job = await self._submit(calls.submit("img2img", params, None))
        try:
            if on_progress is None and on_preview is None:
                return await self._run_for(calls.wait(job), timeout)
            return await self._follow(calls.wait(job), job, on_progress, on_preview, timeout)
        except BaseException:
            self._cancel_unheard(job)
            raise

    async def outpaint(
        self,
        image: ImageLike,
        prompt: Union[str, List[str]] = "",
        *,
        on_progress: Optional[Callable[[Progress], Union[Awaitable[object], object]]] = None,
        on_preview: Optional[Callable[[Preview], Union[Awaitable[object], object]]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[OutpaintFields],
    ) -> Result:
        """Continues a picture beyond its sides, and waits for what comes of it.

        ``fields`` are those of :class:`~latentd.OutpaintFields`; what is left out has the daemon's default.
        Leaving this call by an exception (``timeout`` seconds have passed, the task was cancelled, a callback
        raised) cancels the job.
        """
        params = calls.outpaint_params(image, prompt, fields, on_preview is not None)
        job = await self._submit(calls.submit("outpaint", params, None))
        try:
            if on_progress is None and on_preview is None:
                return await self._run_for(calls.wait(job), timeout)
            return await self._follow(calls.wait(job), job, on_progress, on_preview, timeout)
        except BaseException:
            self._cancel_unheard(job)
            raise

    async def upscale(
        self,
        image: Optional[ImageLike] = None,
        *,
        images: Optional[List[ImageLike]] = None,
        on_progress: Optional[Callable[[Progress], Union[Awaitable[object], object]]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[UpscaleFields],
    ) -> UpscaleResult:
        """Makes a picture, or several ``images``, larger or restores faces in them, and waits for what comes of it.

        ``fields`` are those of :class:`~latentd.UpscaleFields`; what is left out has the daemon's default.
        Leaving this call by an exception (``timeout`` seconds have passed, the task was cancelled, the callback
        raised) cancels the job.
        """
        job = await self._submit(calls.submit_upscale(image, images, fields))
        try:
            if on_progress is None:
                return await self._run_for(calls.wait_upscaled(job), timeout)
            return await self._follow(calls.wait_upscaled(job), job, on_progress, None, timeout)
        except BaseException:
            self._cancel_unheard(job)
            raise

    async def image_info(self, image: ImageLike) -> ImageInfo:
        """What a picture says of how it was made, and the request that repeats it.

        ``image`` is an encoded picture's bytes, a file that the daemon can read, an :class:`~latentd.Image`, or a
        :class:`~latentd.Blob`.
        """
        return await self._run(calls.image_info(image))

    async def put_blob(self, data: bytes) -> Blob:
        """Gives the daemon a PNG, JPEG or WebP file's bytes, to be used in any number of requests.

        It is kept for an hour from its last use on, unless newer ones need the room; then it is a
        :class:`~latentd.NotFound` where it is used, and can be given again.
        """
        return await self._run(calls.put_blob(data))

    async def prompt_tokens(self, text: str, **fields: Unpack[PromptTokensFields]) -> PromptTokens:
        """What a prompt is to the models: tokens, chunks, weights, and what it says at which steps.

        ``fields`` are those of :class:`~latentd.PromptTokensFields`; what is left out has the daemon's default.
        """
        return await self._run(calls.prompt_tokens(text, fields))

    async def styles(self) -> StyleList:
        """All styles, which requests name in ``styles``."""
        return await self._run(calls.styles())

    async def save_style(self, name: str, prompt: str = "", negative_prompt: str = "") -> StyleEntry:
        """Saves a style, in place of one of its name. What requests ask for stands in the place of ``{prompt}`` in its
        texts, or before them."""
        return await self._run(calls.save_style(name, prompt, negative_prompt))

    async def delete_style(self, name: str) -> StyleEntry:
        """Deletes a style that was saved; those in AUTOMATIC1111's files are only read."""
        return await self._run(calls.delete_style(name))

    async def plugins(self) -> PluginList:
        """All plugins, which requests name in ``plugins``."""
        return await self._run(calls.plugins())

    async def enable_plugin(self, name: str) -> PluginEntry:
        """A plugin that could not be loaded, or was set aside because its processes crashed, may be used again."""
        return await self._run(calls.enable_plugin(name))

    async def plugin_schema(self, name: str) -> PluginSchema:
        """What a plugin's parameters may be."""
        return await self._run(calls.plugin_schema(name))

    async def events(
        self, job: Optional[str] = None, *, since: int = 0, timeout: Optional[float] = None
    ) -> AsyncIterator[Event]:
        """What happens to ``job``, from event number ``since`` on, until its last event.

        Without ``job``: what happens to every job from now on, without end. ``timeout`` bounds the wait for each
        event. ``async for event in await client.events(job)``: the subscription is made by the ``await``.
        """
        listener = self._listen(job, since)
        try:
            await self._run(calls.subscribe(job, since if job is not None else None))
        except BaseException:
            self._listeners.discard(listener)
            raise
        return self._events(listener, job, timeout)

    async def _events(
        self, listener: _Listener, job: Optional[str], timeout: Optional[float]
    ) -> AsyncIterator[Event]:
        try:
            while True:
                event = await _within(listener.get(), timeout, f"no event within {timeout} s")
                if event is None:
                    # Says why the connection ended.
                    await self._run(calls.ping())
                    return
                yield event
                if job is not None and event.is_last:
                    return
        finally:
            self._listeners.discard(listener)

    async def _subscribe_library(self) -> _Listener:
        listener = self._listen(None, 0, library=True)
        try:
            await self._run(calls.subscribe(None, None))
        except BaseException:
            self._listeners.discard(listener)
            raise
        return listener

    async def _library_events(
        self, listener: _Listener, timeout: Optional[float]
    ) -> AsyncIterator[LibraryEvent]:
        async for event in self._events(listener, None, timeout):
            if isinstance(event, LibraryEvent):
                yield event

    async def _follow(
        self,
        wait: calls.Call[T],
        job: str,
        on_progress: Optional[Callable[[Progress], Union[Awaitable[object], object]]],
        on_preview: Optional[Callable[[Preview], Union[Awaitable[object], object]]],
        timeout: Optional[float],
    ) -> T:
        clock = asyncio.get_running_loop().time
        deadline = None if timeout is None else clock() + timeout
        listener = self._listen(job, 0)
        try:
            await self._run(calls.subscribe(job, 0))
            # The answer to this ends the loop, not the last event: a daemon may drop events for a slow
            # reader, but never a result.
            reply = self._send(wait.method, wait.params)
            reply.add_done_callback(lambda _: listener.close())
            while True:
                left = None if deadline is None else deadline - clock()
                event = await _within(listener.get(), left, f"job {job} was not finished in time")
                if event is None:
                    return wait.parse(reply.result())
                handled: object = None
                if isinstance(event, Progress) and on_progress is not None:
                    handled = on_progress(event)
                elif isinstance(event, Preview) and on_preview is not None:
                    handled = on_preview(event)
                if isinstance(handled, Awaitable):
                    await handled
        finally:
            self._listeners.discard(listener)

    async def _submit(self, call: calls.Call[str]) -> str:
        reply = self._send(call.method, call.params)
        try:
            return call.parse(await self._answer(reply, call.method, self.timeout))
        except LatentdError:
            raise
        except BaseException:
            # Interrupted before the job had a name: it is cancelled as soon as it has one.
            reply.add_done_callback(lambda done: self._cancel_submitted(call, done))
            raise

    def _cancel_submitted(self, call: calls.Call[str], reply: asyncio.Future[Any]) -> None:
        if not reply.cancelled() and reply.exception() is None:
            self._cancel_unheard(call.parse(reply.result()))

    def _cancel_unheard(self, job: str) -> None:
        """Asks for a job's end without waiting for the answer, which may be that it had ended already."""
        call = calls.cancel(job)
        with suppress(LatentdError):  # Without a connection nothing can be asked.
            self._send(call.method, call.params)

    async def _run(self, call: calls.Call[T]) -> T:
        return await self._run_for(call, self.timeout)

    async def _run_for(self, call: calls.Call[T], timeout: Optional[float]) -> T:
        reply = self._send(call.method, call.params)
        return call.parse(await self._answer(reply, call.method, timeout))

    async def _answer(self, reply: asyncio.Future[Any], method: str, timeout: Optional[float]) -> Any:
        done, _ = await asyncio.wait([reply], timeout=timeout)
        if not done:
            raise Timeout(f"no answer to {method} within {timeout:.1f} s")
        return reply.result()

    def _send(self, method: str, params: Mapping[str, Any]) -> asyncio.Future[Any]:
        self._check_place()
        if self._ended is not None:
            raise self._ended()
        if self._writer is None:
            raise Misuse("not connected: use `async with AsyncClient() as client` or `await client.connect()`")
        request_id, data = self._protocol.request(method, params)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # An answer nobody waits for any more is not a fault that asyncio should report.
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._replies[request_id] = reply
        self._writer.write(data)
        return reply

    def _check_place(self) -> None:
        """Elsewhere an answer would never come: the loop that reads it is another's."""
        self._owner.check()
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise Misuse("this client was connected on another event loop; make one for each loop, and so for each thread")

    def _listen(self, job: Optional[str], since: int, library: bool = False) -> _Listener:
        self._check_place()
        if self._ended is not None:
            raise self._ended()
        listener = _Listener(job, since, library)
        self._listeners.add(listener)
        return listener

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                data = await reader.read(_READ_BYTES)
                if not data:
                    self._end(lambda: ConnectionClosed(self._farewell))
                    return
                self._handle(data)
        except ProtocolError as error:
            reason = error.message
            self._end(lambda: ProtocolError(reason))
        except OSError as error:
            reason = f"the connection broke ({error})"
            self._end(lambda: ConnectionClosed(reason))

    def _handle(self, data: bytes) -> None:
        for message in self._protocol.receive(data):
            if isinstance(message, Response):
                reply = self._replies.pop(message.id, None)
                if reply is None or reply.done():
                    continue
                if message.error is None:
                    reply.set_result(message.result)
                else:
                    reply.set_exception(message.error)
            elif message.method in EVENTS and message.params:
                event = EVENTS[message.method](message.params[0])
                for listener in list(self._listeners):
                    listener.put(event)
            elif message.method == "rpc.error" and message.params:
                # Its last word: what was wrong with what it received.
                self._farewell += f": {from_wire(message.params[0])}"
            # Other notifications are not for us.

    def _end(self, reason: Callable[[], LatentdError]) -> None:
        """Tells everyone who waits, once."""
        if self._ended is not None:
            return
        self._ended = reason
        if self._writer is not None:
            # Flushes what is written, then closes; the reader task sees the end.
            self._writer.close()
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            if not reply.done():
                reply.set_exception(reason())
        for listener in list(self._listeners):
            listener.close()


class _Listener:
    """Where the reader task leaves events for one waiting task."""

    def __init__(self, job: Optional[str], since: int, library: bool) -> None:
        self._backlog = Backlog(job, since, library=library)
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        if self._backlog.put(event):
            self._changed.set()

    def close(self) -> None:
        """Nothing comes any more; what has come can still be taken."""
        self._closed = True
        self._changed.set()

    async def get(self) -> Optional[Event]:
        """The next event; ``None`` after :meth:`close`."""
        while True:
            event = self._backlog.pop()
            if event is not None or self._closed:
                return event
            self._changed.clear()
            await self._changed.wait()


class AsyncJobs:
    """``jobs.*``: pictures that are drawn while the caller does something else."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        id: Optional[str] = None,
        on_disconnect: Optional[str] = None,
    ) -> str:
        """Queues a job and returns its name at once.

        ``id`` becomes the job's name: 1 to 64 letters, digits and ``._-``. Submitting the same with the same id
        again, after a lost connection for example, is the same job. ``on_disconnect`` is ``"keep"`` (default), or
        ``"cancel"``: then the job ends when this connection does.
        """
        return await self._client._run(calls.submit(method, params, id, on_disconnect))

    async def wait(self, job: str, *, timeout: Optional[float] = None) -> Any:
        """Waits for a job of this or another client: a :class:`~latentd.Result`, or a :class:`~latentd.MergeResult` of
        ``models.merge``, what a plugin's method answers as a dict. A ``timeout`` leaves the job running."""
        return await self._client._run_for(calls.wait_any(job), timeout)

    async def get(self, job: str) -> Dict[str, Any]:
        """Where a job stands."""
        return await self._client._run(calls.get(job))

    async def list(
        self, *, state: Optional[str] = None, limit: Optional[int] = None
    ) -> List[Dict[str, Any]]:
        """The jobs the daemon knows, the newest first; only those in ``state``, at most ``limit`` (100)."""
        return await self._client._run(calls.list_jobs(state, limit))

    async def cancel(self, job: str) -> None:
        """Stops a job within a step; who waits for it gets :class:`~latentd.Cancelled`."""
        await self._client._run(calls.cancel(job))


class AsyncLibrary:
    """``library.*``: the model files in the folders the daemon watches."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self, kind: Optional[str] = None) -> List[Dict[str, Any]]:
        """Every file, or those of a kind such as ``"checkpoint"``.

        ``"prediction"`` says what a checkpoint predicts, ``"also"`` what else the file holds, and ``"unsupported"`` why
        this version cannot draw with it; ``"hash"``, ``"auto_v2"``, ``"old_hash"`` and ``"addon_hash"`` are its hashes as
        far as they are known, ``"base_model"`` what it was trained for, ``"preview"`` the path of a picture beside it.
        """
        return await self._client._run(calls.library_list(kind))

    async def problems(self) -> List[Dict[str, Any]]:
        """Files and folders that cannot be used, and why."""
        return await self._client._run(calls.library_problems())

    async def default_checkpoint(self) -> Optional[str]:
        """What draws a request that names no checkpoint; ``None`` where there is nothing."""
        return await self._client._run(calls.library_default())

    async def get(self, kind: str, name: str) -> Dict[str, Any]:
        """What is known of one file. ``name`` may also be its path, the beginning of its hash as far as that is known,
        or a name or path with a hash behind it.

        ``"details"`` is what the file and what lies beside it say of it: ``"metadata"``, ``"tags"``,
        ``"trigger_words"``, ``"description"``, ``"notes"``, ``"preferred_weight"``, ``"model_name"``, …
        """
        return await self._client._run(calls.library_get(kind, name))

    async def events(self, *, timeout: Optional[float] = None) -> AsyncIterator[LibraryEvent]:
        """What happens to the library from now on, without end. ``timeout`` bounds the wait for each event.
        ``async for event in await client.library.events()``: the subscription is made by the ``await``."""
        return self._client._library_events(await self._client._subscribe_library(), timeout)

    async def rescan(self) -> Dict[str, Any]:
        """Looks at the folders again, now."""
        return await self._client._run(calls.library_rescan())


class AsyncModels:
    """``models.*``: what is in memory, and new checkpoints of old ones."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def load(
        self, checkpoint: str, *, vae: Optional[str] = None, timeout: Optional[float] = None
    ) -> Dict[str, Any]:
        """Makes a checkpoint resident, with a VAE as in ``txt2img``, so that the next picture starts at once."""
        return await self._client._run_for(calls.models_load(checkpoint, vae), timeout)

    async def unload(self, checkpoint: str) -> bool:
        """Gives a checkpoint's memory back; ``False`` where it was not resident."""
        return await self._client._run(calls.models_unload(checkpoint))

    async def loaded(self) -> List[Dict[str, Any]]:
        """What is resident."""
        return await self._client._run(calls.models_loaded())

    async def pin(self, checkpoint: str, pinned: bool = True) -> Dict[str, Any]:
        """Keeps a checkpoint resident whatever else wants memory, or no longer."""
        return await self._client._run(calls.models_pin(checkpoint, pinned))

    async def merge(
        self,
        a: str,
        name: str,
        *,
        on_progress: Optional[Callable[[Progress], Union[Awaitable[object], object]]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[MergeFields],
    ) -> MergeResult:
        """Writes a new checkpoint called ``name`` and waits for it: ``a`` with others, a VAE or LoRAs in it.

        ``fields`` are those of :class:`~latentd.MergeFields`. Leaving this call by an exception (``timeout`` seconds have
        passed, the task was cancelled, the callback raised) cancels the job, of which nothing is left then.
        """
        client = self._client
        job = await client._submit(calls.submit_merge(a, name, fields))
        try:
            if on_progress is None:
                return await client._run_for(calls.wait_merged(job), timeout)
            return await client._follow(calls.wait_merged(job), job, on_progress, None, timeout)
        except BaseException:
            client._cancel_unheard(job)
            raise


async def _within(work: Awaitable[T], timeout: Optional[float], what: str) -> T:
    try:
        return await asyncio.wait_for(work, timeout)
    except asyncio.TimeoutError:
        raise Timeout(what) from None
