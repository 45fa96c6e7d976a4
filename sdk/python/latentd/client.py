"""The client for programs without an event loop."""

from __future__ import annotations

import concurrent.futures
import os
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Type, TypeVar, Union

from . import calls
from .address import socket_path
from .connection import Connection, Listener
from .errors import LatentdError, Timeout
from .protocol import MAX_MESSAGE_BYTES
from .plugins import PluginEntry, PluginList, PluginSchema
from .prompts import PromptTokens, StyleEntry, StyleList
from .types import Blob, Event, ImageInfo, ImageLike, LibraryEvent, MergeResult, Preview, Progress, Result, UpscaleResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .prompts import PromptTokensFields
    from .types import Img2ImgFields, MergeFields, OutpaintFields, Txt2ImgFields, UpscaleFields

T = TypeVar("T")


class Client:
    """A connection to the daemon.

    >>> with Client() as client:
    ...     result = client.txt2img("a lighthouse at dusk", seed=7)
    ...     result.images[0].save("lighthouse.png")

    Any number of threads may use one client at the same time. Callbacks run on the thread that called the
    method they were given to, one at a time; a callback that raises cancels the job, and its exception comes
    out of that call. A client does not survive ``fork``: used in the child it raises :class:`~latentd.Misuse`; make a new
    one there.

    ``path`` is the socket; without it the place where the daemon puts it is used (:func:`socket_path`).
    ``timeout`` is how many seconds short calls wait for their answer, ``None`` for ever. Calls that wait for
    a picture have their own.
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
        self._connection = Connection(self.path, max_message_bytes)
        self._finalizer = weakref.finalize(self, self._connection.close)

    def close(self) -> None:
        """Ends the connection. Jobs go on in the daemon; their results can be fetched by another client."""
        self._finalizer()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    # Made anew each time: kept, they would be a cycle that delays the end of a dropped client's connection.
    @property
    def jobs(self) -> Jobs:
        """Pictures that are drawn while the caller does something else."""
        return Jobs(self)

    @property
    def library(self) -> Library:
        """The model files in the folders the daemon watches."""
        return Library(self)

    @property
    def models(self) -> Models:
        """What is in memory, and new checkpoints of old ones."""
        return Models(self)

    def call(self, method: str, params: Optional[Mapping[str, Any]] = None) -> Any:
        """Calls any method by name, such as one that a plugin adds, and returns what the daemon answers."""
        return self._run(calls.generic(method, params))

    def ping(self) -> None:
        """Returns once the daemon has answered."""
        self._run(calls.ping())

    def initialize(self, name: str, version: str = "") -> Dict[str, Any]:
        """Tells the daemon who calls; returns its version, protocol, capabilities and limits. Optional."""
        return self._run(calls.initialize(name, version))

    def status(self) -> Dict[str, Any]:
        """Devices, memory, resident models, the queue, and how much lies on the disk (`storage`)."""
        return self._run(calls.status())

    def api_info(self) -> Dict[str, Any]:
        """Every method with its JSON Schemas."""
        return self._run(calls.api_info())

    def shutdown(self) -> None:
        """Asks the daemon to finish what runs and exit."""
        self._run(calls.shutdown())

    def txt2img(
        self,
        prompt: Union[str, List[str]],
        *,
        on_progress: Optional[Callable[[Progress], object]] = None,
        on_preview: Optional[Callable[[Preview], object]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[Txt2ImgFields],
    ) -> Result:
        """Draws pictures of ``prompt`` and waits for them. A list has one text for each of them, ``batch_size * n_iter``.

        ``fields`` are those of :class:`~latentd.Txt2ImgFields`; what is left out has the daemon's default.
        Leaving this call by an exception (``timeout`` seconds have passed, Ctrl-C, a callback raised) cancels
        the job.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        params = calls.txt2img_params(prompt, fields, on_preview is not None)
        job = self._submit(calls.submit("txt2img", params, None))
        try:
            if on_progress is None and on_preview is None:
                return self._run_until(calls.wait(job), deadline)
            return self._follow(calls.wait(job), job, on_progress, on_preview, deadline)
        except BaseException:
            self._cancel_unheard(job)
            raise

    def img2img(
        self,
        init_images: Union[ImageLike, List[ImageLike]],
        prompt: Union[str, List[str]] = "",
        *,
        on_progress: Optional[Callable[[Progress], object]] = None,
        on_preview: Optional[Callable[[Preview], object]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[Img2ImgFields],
    ) -> Result:
        """Draws from pictures, all of each or what ``mask`` says, and waits for what comes of them.

        ``init_images`` is a picture for all that are drawn, or a list with one for each of a batch or for each of them.

        ``fields`` are those of :class:`~latentd.Img2ImgFields`; what is left out has the daemon's default.
        Leaving this call by an exception (``timeout`` seconds have passed, Ctrl-C, a callback raised) cancels
        the job.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        params = calls.img2img_params(init_images, prompt, fields, on_preview is not None)
        job = self._submit(calls.submit("img2img", params, None))
        try:
            if on_progress is None and on_preview is None:
                return self._run_until(calls.wait(job), deadline)
            return self._follow(calls.wait(job), job, on_progress, on_preview, deadline)
        except BaseException:
            self._cancel_unheard(job)
            raise

    def outpaint(
        self,
        image: ImageLike,
        prompt: Union[str, List[str]] = "",
        *,
        on_progress: Optional[Callable[[Progress], object]] = None,
        on_preview: Optional[Callable[[Preview], object]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[OutpaintFields],
    ) -> Result:
        """Continues a picture beyond its sides, and waits for what comes of it.

        ``fields`` are those of :class:`~latentd.OutpaintFields`; what is left out has the daemon's default.
        Leaving this call by an exception (``timeout`` seconds have passed, Ctrl-C, a callback raised) cancels
        the job.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        params = calls.outpaint_params(image, prompt, fields, on_preview is not None)
        job = self._submit(calls.submit("outpaint", params, None))
        try:
            if on_progress is None and on_preview is None:
                return self._run_until(calls.wait(job), deadline)
            return self._follow(calls.wait(job), job, on_progress, on_preview, deadline)
        except BaseException:
            self._cancel_unheard(job)
            raise

    def upscale(
        self,
        image: Optional[ImageLike] = None,
        *,
        images: Optional[List[ImageLike]] = None,
        on_progress: Optional[Callable[[Progress], object]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[UpscaleFields],
    ) -> UpscaleResult:
        """Makes a picture, or several ``images``, larger or restores faces in them, and waits for what comes of it.

        ``fields`` are those of :class:`~latentd.UpscaleFields`; what is left out has the daemon's default.
        Leaving this call by an exception (``timeout`` seconds have passed, Ctrl-C, the callback raised) cancels
        the job.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        job = self._submit(calls.submit_upscale(image, images, fields))
        try:
            if on_progress is None:
                return self._run_until(calls.wait_upscaled(job), deadline)
            return self._follow(calls.wait_upscaled(job), job, on_progress, None, deadline)
        except BaseException:
            self._cancel_unheard(job)
            raise

    def image_info(self, image: ImageLike) -> ImageInfo:
        """What a picture says of how it was made, and the request that repeats it.

        ``image`` is an encoded picture's bytes, a file that the daemon can read, an :class:`~latentd.Image`, or a
        :class:`~latentd.Blob`.
        """
        return self._run(calls.image_info(image))

    def put_blob(self, data: bytes) -> Blob:
        """Gives the daemon a PNG, JPEG or WebP file's bytes, to be used in any number of requests.

        It is kept for an hour from its last use on, unless newer ones need the room; then it is a
        :class:`~latentd.NotFound` where it is used, and can be given again.
        """
        return self._run(calls.put_blob(data))

    def prompt_tokens(self, text: str, **fields: Unpack[PromptTokensFields]) -> PromptTokens:
        """What a prompt is to the models: tokens, chunks, weights, and what it says at which steps.

        ``fields`` are those of :class:`~latentd.PromptTokensFields`; what is left out has the daemon's default.
        """
        return self._run(calls.prompt_tokens(text, fields))

    def styles(self) -> StyleList:
        """All styles, which requests name in ``styles``."""
        return self._run(calls.styles())

    def save_style(self, name: str, prompt: str = "", negative_prompt: str = "") -> StyleEntry:
        """Saves a style, in place of one of its name. What requests ask for stands in the place of ``{prompt}`` in its
        texts, or before them."""
        return self._run(calls.save_style(name, prompt, negative_prompt))

    def delete_style(self, name: str) -> StyleEntry:
        """Deletes a style that was saved; those in AUTOMATIC1111's files are only read."""
        return self._run(calls.delete_style(name))

    def plugins(self) -> PluginList:
        """All plugins, which requests name in ``plugins``."""
        return self._run(calls.plugins())

    def enable_plugin(self, name: str) -> PluginEntry:
        """A plugin that could not be loaded, or was set aside because its processes crashed, may be used again."""
        return self._run(calls.enable_plugin(name))

    def plugin_schema(self, name: str) -> PluginSchema:
        """What a plugin's parameters may be."""
        return self._run(calls.plugin_schema(name))

    def events(
        self, job: Optional[str] = None, *, since: int = 0, timeout: Optional[float] = None
    ) -> Iterator[Event]:
        """What happens to ``job``, from event number ``since`` on, until its last event.

        Without ``job``: what happens to every job from now on, without end. ``timeout`` bounds the wait for each
        event. The subscription is made by this call, not by the first step of the iteration.
        """
        listener = self._connection.listen(job, since)
        try:
            self._run(calls.subscribe(job, since if job is not None else None))
        except BaseException:
            self._connection.forget(listener)
            raise
        return self._events(listener, job, timeout)

    def _library_events(self, timeout: Optional[float]) -> Iterator[Event]:
        listener = self._connection.listen(None, 0, library=True)
        try:
            self._run(calls.subscribe(None, None))
        except BaseException:
            self._connection.forget(listener)
            raise
        return self._events(listener, None, timeout)

    def _events(self, listener: Listener, job: Optional[str], timeout: Optional[float]) -> Iterator[Event]:
        try:
            while True:
                try:
                    event = listener.get(timeout)
                except TimeoutError:
                    raise Timeout(f"no event within {timeout} s") from None
                if event is None:
                    # Says why the connection ended.
                    self._run(calls.ping())
                    return
                yield event
                if job is not None and event.is_last:
                    return
        finally:
            self._connection.forget(listener)

    def _follow(
        self,
        wait: calls.Call[T],
        job: str,
        on_progress: Optional[Callable[[Progress], object]],
        on_preview: Optional[Callable[[Preview], object]],
        deadline: Optional[float],
    ) -> T:
        listener = self._connection.listen(job, 0)
        try:
            self._run(calls.subscribe(job, 0))
            # The answer to this ends the loop, not the last event: a daemon may drop events for a slow
            # reader, but never a result.
            reply = self._connection.send(wait.method, wait.params)
            reply.add_done_callback(lambda _: listener.close())
            while True:
                try:
                    event = listener.get(_left(deadline))
                except TimeoutError:
                    raise Timeout(f"job {job} was not finished in time") from None
                if event is None:
                    return wait.parse(reply.result())
                if isinstance(event, Progress) and on_progress is not None:
                    on_progress(event)
                elif isinstance(event, Preview) and on_preview is not None:
                    on_preview(event)
        finally:
            self._connection.forget(listener)

    def _submit(self, call: calls.Call[str]) -> str:
        reply = self._connection.send(call.method, call.params)
        try:
            return call.parse(self._answer(reply, call.method, self.timeout))
        except LatentdError:
            raise
        except BaseException:
            # Interrupted before the job had a name: it is cancelled as soon as it has one.
            reply.add_done_callback(lambda done: self._cancel_submitted(call, done))
            raise

    def _cancel_submitted(self, call: calls.Call[str], reply: concurrent.futures.Future[Any]) -> None:
        if reply.exception() is None:
            self._cancel_unheard(call.parse(reply.result()))

    def _cancel_unheard(self, job: str) -> None:
        """Asks for a job's end without waiting for the answer, which may be that it had ended already."""
        call = calls.cancel(job)
        try:
            self._connection.send(call.method, call.params)
        except LatentdError:
            pass  # Without a connection nothing can be asked.

    def _run(self, call: calls.Call[T]) -> T:
        return self._run_for(call, self.timeout)

    def _run_until(self, call: calls.Call[T], deadline: Optional[float]) -> T:
        return self._run_for(call, _left(deadline))

    def _run_for(self, call: calls.Call[T], timeout: Optional[float]) -> T:
        reply = self._connection.send(call.method, call.params)
        return call.parse(self._answer(reply, call.method, timeout))

    def _answer(
        self, reply: concurrent.futures.Future[Any], method: str, timeout: Optional[float]
    ) -> Any:
        done, _ = concurrent.futures.wait([reply], timeout)
        if not done:
            raise Timeout(f"no answer to {method} within {timeout:.1f} s")
        return reply.result()


class Jobs:
    """``jobs.*``: pictures that are drawn while the caller does something else."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(
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
        return self._client._run(calls.submit(method, params, id, on_disconnect))

    def wait(self, job: str, *, timeout: Optional[float] = None) -> Any:
        """Waits for a job of this or another client: a :class:`~latentd.Result`, or a :class:`~latentd.MergeResult` of
        ``models.merge``, what a plugin's method answers as a dict. A ``timeout`` leaves the job running."""
        return self._client._run_for(calls.wait_any(job), timeout)

    def get(self, job: str) -> Dict[str, Any]:
        """Where a job stands."""
        return self._client._run(calls.get(job))

    def list(
        self, *, state: Optional[str] = None, limit: Optional[int] = None
    ) -> List[Dict[str, Any]]:
        """The jobs the daemon knows, the newest first; only those in ``state``, at most ``limit`` (100).

        States are ``resolving``, ``queued``, ``running``, ``finished``, ``failed``, ``cancelled`` and
        ``interrupted``; a newer daemon may have more.
        """
        return self._client._run(calls.list_jobs(state, limit))

    def cancel(self, job: str) -> None:
        """Stops a job within a step; who waits for it gets :class:`~latentd.Cancelled`."""
        self._client._run(calls.cancel(job))


class Library:
    """``library.*``: the model files in the folders the daemon watches."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, kind: Optional[str] = None) -> List[Dict[str, Any]]:
        """Every file, or those of a kind such as ``"checkpoint"``.

        ``"prediction"`` says what a checkpoint predicts, ``"also"`` what else the file holds, and ``"unsupported"`` why
        this version cannot draw with it; ``"hash"``, ``"auto_v2"``, ``"old_hash"`` and ``"addon_hash"`` are its hashes as
        far as they are known, ``"base_model"`` what it was trained for, ``"preview"`` the path of a picture beside it.
        """
        return self._client._run(calls.library_list(kind))

    def problems(self) -> List[Dict[str, Any]]:
        """Files and folders that cannot be used, and why."""
        return self._client._run(calls.library_problems())

    def default_checkpoint(self) -> Optional[str]:
        """What draws a request that names no checkpoint; ``None`` where there is nothing."""
        return self._client._run(calls.library_default())

    def get(self, kind: str, name: str) -> Dict[str, Any]:
        """What is known of one file. ``name`` may also be its path, the beginning of its hash as far as that is known,
        or a name or path with a hash behind it.

        ``"details"`` is what the file and what lies beside it say of it: ``"metadata"``, ``"tags"``,
        ``"trigger_words"``, ``"description"``, ``"notes"``, ``"preferred_weight"``, ``"model_name"``, …
        """
        return self._client._run(calls.library_get(kind, name))

    def events(self, *, timeout: Optional[float] = None) -> Iterator[LibraryEvent]:
        """What happens to the library from now on, without end. ``timeout`` bounds the wait for each event. The
        subscription is made by this call, not by the first step of the iteration."""
        events = self._client._library_events(timeout)
        return (event for event in events if isinstance(event, LibraryEvent))

    def rescan(self) -> Dict[str, Any]:
        """Looks at the folders again, now."""
        return self._client._run(calls.library_rescan())


class Models:
    """``models.*``: what is in memory, and new checkpoints of old ones."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def load(
        self, checkpoint: str, *, vae: Optional[str] = None, timeout: Optional[float] = None
    ) -> Dict[str, Any]:
        """Makes a checkpoint resident, with a VAE as in ``txt2img``, so that the next picture starts at once."""
        return self._client._run_for(calls.models_load(checkpoint, vae), timeout)

    def unload(self, checkpoint: str) -> bool:
        """Gives a checkpoint's memory back; ``False`` where it was not resident."""
        return self._client._run(calls.models_unload(checkpoint))

    def loaded(self) -> List[Dict[str, Any]]:
        """What is resident."""
        return self._client._run(calls.models_loaded())

    def pin(self, checkpoint: str, pinned: bool = True) -> Dict[str, Any]:
        """Keeps a checkpoint resident whatever else wants memory, or no longer."""
        return self._client._run(calls.models_pin(checkpoint, pinned))

    def merge(
        self,
        a: str,
        name: str,
        *,
        on_progress: Optional[Callable[[Progress], object]] = None,
        timeout: Optional[float] = None,
        **fields: Unpack[MergeFields],
    ) -> MergeResult:
        """Writes a new checkpoint called ``name`` and waits for it: ``a`` with others, a VAE or LoRAs in it.

        ``fields`` are those of :class:`~latentd.MergeFields`. Leaving this call by an exception (``timeout`` seconds have
        passed, Ctrl-C, the callback raised) cancels the job, of which nothing is left then.
        """
        client = self._client
        deadline = None if timeout is None else time.monotonic() + timeout
        job = client._submit(calls.submit_merge(a, name, fields))
        try:
            if on_progress is None:
                return client._run_until(calls.wait_merged(job), deadline)
            return client._follow(calls.wait_merged(job), job, on_progress, None, deadline)
        except BaseException:
            client._cancel_unheard(job)
            raise


def _left(deadline: Optional[float]) -> Optional[float]:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
