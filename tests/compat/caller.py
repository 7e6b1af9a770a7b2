"""The official client, synchronous or asynchronous, with its HTTP requests counted."""

import asyncio
import time
import warnings

import httpx2
import openai

# The client announces the end of the hosted models; ours stay.
warnings.filterwarnings("ignore", category=DeprecationWarning)


class Caller:
    """`Caller(url).transcribe(...)`; `.sent` has the time and the headers of every HTTP request of the last call, `.received` those
    of its responses."""

    def __init__(self, url, is_async=False, key="any", max_retries=2, timeout=600.0):
        self.name = "async" if is_async else "sync"
        self.is_async = is_async
        self.options = dict(base_url=f"{url}/v1", api_key=key, max_retries=max_retries, timeout=timeout)
        self.sent, self.received = [], []

    def call(self, method):
        """`method` of the client: its result, with streams read to their end."""
        self.sent, self.received = [], []
        return asyncio.run(self._async(method)) if self.is_async else self._sync(method)

    def _sync(self, method):
        hooks = {"request": [self._sent], "response": [self._received]}
        with openai.OpenAI(http_client=httpx2.Client(event_hooks=hooks, timeout=None), **self.options) as client:
            result = method(client)
            return list(result) if isinstance(result, openai.Stream) else result

    async def _async(self, method):
        async def sent(request):
            self._sent(request)

        async def received(response):
            self._received(response)

        http = httpx2.AsyncClient(event_hooks={"request": [sent], "response": [received]}, timeout=None)
        async with openai.AsyncOpenAI(http_client=http, **self.options) as client:
            result = await method(client)
            return [event async for event in result] if isinstance(result, openai.AsyncStream) else result

    def _sent(self, request):
        self.sent.append((time.monotonic(), request.headers))

    def _received(self, response):
        self.received.append((time.monotonic(), response.status_code, response.headers))

    def transcribe(self, **fields):
        return self.call(lambda client: client.audio.transcriptions.create(**fields))

    def translate(self, **fields):
        return self.call(lambda client: client.audio.translations.create(**fields))

    def refused(self, method, kind, code=None, param=None, requests=1):
        """The error of a call that must fail: of this class, naming this parameter, after so many HTTP requests."""
        try:
            result = self.call(method)
        except openai.APIError as error:
            check_error(error, kind, code, param)
            assert len(self.sent) == requests, f"{len(self.sent)} requests were sent, not {requests}"
            return error
        raise AssertionError(f"{kind.__name__} was expected, not {result!r:.200}")


def check_error(error, kind, code=None, param=None):
    assert type(error) is kind, f"{kind.__name__} was expected, not {type(error).__name__}: {error}"
    assert isinstance(error.body, dict), f"the body is {error.body!r}"
    assert set(error.body) == {"message", "type", "param", "code"}, f"the error has {sorted(error.body)}"
    assert error.body["message"] and error.type, f"message {error.body['message']!r}, type {error.type!r}"
    assert error.code, "the error has no code"
    if code is not None:
        assert error.code == code, f"code {code} was expected, not {error.code}: {error}"
    if param is not None:
        # `name[]` and `name[key]` are how the client writes lists and objects.
        named = (error.param or "").split("[")[0]
        assert named == param, f"param {param} was expected, not {error.param}: {error}"
    if isinstance(error, openai.APIStatusError):
        assert error.request_id, "the response has no x-request-id"
