"""Calls by telephone, over Twilio's media streams: `POST /twilio/voice` answers a ringing phone, and Twilio carries the
call's sound to `WS /twilio/media` and back. The plugin is off while it has no `auth_token`.

In config.yaml:

    plugins:
      options:
        twilio:
          auth_token: {env: TWILIO_AUTH_TOKEN, default: null}
          url: https://talk.example.com   # where Twilio reaches this service; "": as the request says
          persona: assistant              # whom the caller talks with; "": the default persona

Who calls is Twilio: each request must bear its signature, and each stream a token that is good for one call. It needs
the package `twilio` (`pip install 'personaplex-modal[twilio]'`).
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec
from itsdangerous import BadData, URLSafeTimedSerializer
from msgspec import Meta, Struct
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from core import (
    AudioError,
    CallEnded,
    CallerSound,
    CallRequest,
    Calls,
    ClientMessage,
    ClientSocket,
    Config,
    Frame,
    FromEnvironment,
    Identity,
    KeyPressed,
    PluginError,
    ProtocolError,
    RawAudioReader,
    RawAudioWriter,
    RefusedError,
    Secret,
    Store,
    Transport,
    get_logger,
    hookimpl,
    public,
)

VOICE, MEDIA = "/twilio/voice", "/twilio/media"
SIGNATURE = "x-twilio-signature"
LONGEST_FORM = 65_536
TOKEN_S = 120
"""How long the phone may take from the answer to the stream."""
MOST_TOKENS = 10_000
"""Used tokens that are remembered for as long as they could be used again: 40 calls a second."""
START_S = 10.0
"""How long a stream may take to say what it is."""
RATE = 8000
PIECE_BYTES = 160
"""20 ms of mu-law: a message of sound, either way."""
MARK_FRAMES = 25
"""A mark goes out after so many frames, every 2 s; Twilio sends it back when it has played what came before."""
LATEST_S = 1.0
"""A mark that comes back later than this says that so much sound waits to be played, for the rest of the call."""
KEYS = frozenset("0123456789ABCD*#")
REFUSED = 1008
"""The close code of a stream that gets no call (RFC 6455, 7.4.1)."""


class MediaFormat(Struct, frozen=True):
    """How the stream's sound is coded."""

    encoding: str
    sampleRate: int  # noqa: N815 - Twilio's names
    channels: int


class StreamStart(Struct, frozen=True):
    """What a stream is, once, before its sound."""

    streamSid: str  # noqa: N815
    callSid: str  # noqa: N815
    mediaFormat: MediaFormat  # noqa: N815
    customParameters: dict[str, str] = msgspec.field(default_factory=dict)  # noqa: N815


class Media(Struct, frozen=True):
    """Sound, base64 on the wire."""

    payload: bytes
    track: str = "inbound"


class Digit(Struct, frozen=True):
    """A key that the caller has pressed."""

    digit: str


class Mark(Struct, frozen=True):
    """A name that comes back when what was sent before it has been played."""

    name: str


class StreamMessage(Struct, frozen=True):
    """A message of Twilio's; `event` says which of the others it has. Fields that are not used here are left out."""

    event: str
    start: StreamStart | None = None
    media: Media | None = None
    dtmf: Digit | None = None
    mark: Mark | None = None


_messages = msgspec.json.Decoder(StreamMessage)


def read_message(text: str | bytes) -> StreamMessage:
    """One message of a stream. Raises ProtocolError."""
    try:
        return _messages.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"This is no message of a media stream: {error}.") from None


class Plugin:
    """Answers the phone, and turns each media stream into a session."""

    class Options(Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml. Without a token the plugin is off."""

        auth_token: Annotated[Secret | None, FromEnvironment("TWILIO_AUTH_TOKEN")] = None
        """The account's Auth Token, which signs Twilio's requests. Its default is the variable TWILIO_AUTH_TOKEN."""
        url: Annotated[str, Meta(pattern=r"^(https?://[^/?#\s]+)?$")] = ""
        """The origin at which Twilio reaches the service, such as https://talk.example.com. "" is what the request
        itself says, which a proxy must be trusted for (`server.trusted_proxies`)."""
        persona: str = ""
        voice: str = ""
        """"" is the persona's own."""
        signed_streams: bool = True
        """Whether a stream must bear a signature, as Twilio's do. Its token is asked for in any case."""

    def __init__(self, options: Options) -> None:
        self.enabled = options.auth_token is not None
        self._options = options
        if options.auth_token is None:
            return
        try:
            from twilio.request_validator import RequestValidator
        except ImportError as error:
            raise PluginError("needs twilio. Install it with: pip install 'personaplex-modal[twilio]'.") from error
        self._log = get_logger("twilio")
        self._validator = RequestValidator(options.auth_token.reveal())
        self._tokens = URLSafeTimedSerializer(options.auth_token.reveal(), salt="personaplex media stream")
        self._calls: Calls | None = None

    @hookimpl
    async def startup(self, config: Config, shared: Store, calls: Calls | None) -> None:
        self._start_s = min(config.server.request_s, START_S)
        self._calls = calls
        self._used_tokens = shared.table("twilio used tokens", MOST_TOKENS, evict=False)

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        return [Route(VOICE, self.answer, methods=["POST"]), WebSocketRoute(MEDIA, self.stream)]

    @public
    async def answer(self, request: Request) -> Response:
        """`POST /twilio/voice`: what Twilio is to do with a call that comes in, as TwiML: connect it to a stream."""
        form = await _form_of(request)
        self._check_signature(request, f"{self._origin(request)}{VOICE}{_query_of(request)}", form)
        from twilio.twiml.voice_response import Connect, VoiceResponse

        url = f"{self._origin(request)}{MEDIA}".replace("http", "ws", 1)
        connect = Connect()
        stream = connect.stream(url=url)
        parameters = {"persona": self._options.persona, "voice": self._options.voice}
        parameters |= {"token": self._tokens.dumps(secrets.token_urlsafe(12)), "from": form.get("From", "")}
        for name, value in parameters.items():
            if value:
                stream.parameter(name=name, value=value)
        response = VoiceResponse()
        response.append(connect)
        return Response(str(response), media_type="text/xml")

    @public
    async def stream(self, websocket: WebSocket) -> None:
        """`WS /twilio/media`: one call, from the answer to the hang-up."""
        try:
            if self._calls is None:
                raise RefusedError(503, "This process takes no calls.")
            if self._options.signed_streams or SIGNATURE in websocket.headers:
                self._check_signature(websocket, f"{self._origin(websocket)}{MEDIA}".replace("http", "ws", 1), {})
        except RefusedError as refusal:
            await websocket.send_denial_response(JSONResponse({"error": str(refusal)}, status_code=refusal.status))
            return
        await websocket.accept()
        socket = ClientSocket(websocket)
        try:
            start = await self._await_start(socket)
            parameters = start.customParameters
            claims = {"call": start.callSid, "from": parameters.get("from", "")}
            request = CallRequest(
                persona=parameters.get("persona") or None,
                voice=parameters.get("voice") or None,
                identity=Identity("phone", claims),
            )
            call = await self._calls.accept(websocket, request)
        except CallEnded:
            return
        except (ProtocolError, RefusedError) as error:
            self._log.warning("a phone call got no session", problem=str(error))
            await socket.close(REFUSED, str(error))
            return
        await call.run(PhoneTransport(socket, start.streamSid))

    async def _await_start(self, socket: ClientSocket) -> StreamStart:
        """The stream's start, with a token that this service has issued. Raises ProtocolError, RefusedError and
        CallEnded."""
        try:
            async with asyncio.timeout(self._start_s):
                message = read_message(await socket.receive())
                if message.event == "connected":
                    message = read_message(await socket.receive())
        except TimeoutError:
            raise ProtocolError(f"No start came in {self._start_s:g} s.") from None
        start = message.start
        if message.event != "start" or start is None:
            raise ProtocolError(f"A stream begins with connected and start, not with {message.event[:40]!r}.")
        form = start.mediaFormat
        if (form.encoding.lower(), form.sampleRate, form.channels) != ("audio/x-mulaw", RATE, 1):
            raise ProtocolError(f"The sound must be audio/x-mulaw, 8000 Hz, mono, not {form.encoding[:40]!r}.")
        self._use_token(start.customParameters.get("token", ""))
        return start

    def _use_token(self, token: str) -> None:
        """Raises RefusedError unless the service has issued the token lately, and no stream has used it."""
        try:
            name = self._tokens.loads(token, max_age=TOKEN_S)
        except BadData:
            raise RefusedError(403, "The stream's token is missing, wrong or too old.") from None
        uses = self._used_tokens.update(name, lambda before: (before[0] + 1 if before else 1.0,), 2 * TOKEN_S)
        if uses != (1.0,):
            raise RefusedError(403, "The stream's token has been used already.")

    def _check_signature(self, connection: HTTPConnection, url: str, form: Mapping[str, str]) -> None:
        """Raises RefusedError unless Twilio has signed the request for this URL and form."""
        signature = connection.headers.get(SIGNATURE, "")
        if not (signature and self._validator.validate(url, dict(form), signature)):
            self._log.warning("a request without Twilio's signature", url=url, signed=bool(signature))
            raise RefusedError(403, "This request does not bear Twilio's signature.")

    def _origin(self, connection: HTTPConnection) -> str:
        """Scheme and host at which Twilio reaches the service, as http(s)."""
        if self._options.url:
            return self._options.url
        secure = connection.url.scheme in ("https", "wss")
        return f"{'https' if secure else 'http'}://{connection.url.netloc}"


class PhoneTransport(Transport):
    """One media stream: mu-law in messages of 20 ms, both ways."""

    audio = "mulaw 8000"
    route = MEDIA

    def __init__(self, socket: ClientSocket, stream_sid: str) -> None:
        self._socket = socket
        self._stream_sid = stream_sid
        self._reader = RawAudioReader("mulaw", RATE)
        self._writer = RawAudioWriter("mulaw", RATE)
        self._frames = 0
        self._marks: dict[str, float] = {}
        """When each mark that has not come back was sent."""

    async def receive(self) -> CallerSound | ClientMessage | KeyPressed:
        """See Transport. Raises CallEnded when the caller hangs up, and ProtocolError."""
        text = await self._socket.receive()
        began = time.perf_counter()
        message = read_message(text)
        match message:
            case StreamMessage("media", media=Media(payload=payload, track="inbound")):
                try:
                    samples = self._reader.read(payload)
                except AudioError as error:
                    raise ProtocolError(str(error)) from None
                return CallerSound(samples, size=len(text), decode_ms=(time.perf_counter() - began) * 1000)
            case StreamMessage("stop"):
                raise CallEnded("left")
            case StreamMessage("mark", mark=Mark(name=name)):
                await self._played(name)
            case StreamMessage("dtmf", dtmf=Digit(digit=digit)) if digit in KEYS:
                return KeyPressed(digit)
        return ClientMessage(size=len(text))

    def encode(self, frame: Frame) -> list[str]:
        """See Transport: four messages of 20 ms."""
        sound = self._writer.write(frame)
        pieces = (sound[start : start + PIECE_BYTES] for start in range(0, len(sound), PIECE_BYTES))
        return [self._message("media", media={"payload": piece}) for piece in pieces]

    async def send_audio(self, sound: list[str]) -> None:
        """See Transport."""
        for piece in sound:
            await self._socket.send(piece)
        self._frames += 1
        if self._frames % MARK_FRAMES == 0:
            name = str(self._frames)
            self._marks[name] = time.monotonic()
            await self._socket.send(self._message("mark", mark={"name": name}))

    async def close(self, ended: CallEnded) -> None:
        """See Transport. Twilio goes on with the TwiML after the stream, which is to hang up."""
        await self._socket.close(ended.code, ended.message)

    async def _played(self, name: str) -> None:
        """Twilio has played what was sent before a mark. Where that took long, what still waits is dropped, so that the
        caller hears the agent in time again; Twilio then sends all marks back."""
        sent = self._marks.pop(name, None)
        if sent is not None and time.monotonic() - sent > LATEST_S:
            self._marks.clear()
            await self._socket.send(self._message("clear"))

    def _message(self, event: Literal["media", "mark", "clear"], **fields: Any) -> str:
        return msgspec.json.encode({"event": event, "streamSid": self._stream_sid, **fields}).decode()


async def _form_of(request: Request) -> dict[str, str]:
    """The fields of a form. Raises RefusedError when it is too long or none."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise RefusedError(413, "The form is too long.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000))
    except ValueError:
        raise RefusedError(400, "This is no form.") from None


def _query_of(request: Request) -> str:
    return f"?{request.url.query}" if request.url.query else ""
