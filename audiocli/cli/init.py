"""`audiocli init`: set up a gateway, its key, its prices, a default voice and shell completion.

Each step names the file that it writes, changes nothing that is set up already, and can be skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from ..context import AppContext
from ..errors import AccessError, AudiocliError, UsageError
from .options import GatewayName, GatewayOptions, GeneralOptions, format_price, open_app, with_options
from .prompts import ask, ask_secret, choose, confirm

if TYPE_CHECKING:
    from ..console import Console
    from ..core.run_context import RunContext
    from ..routing import GatewayConfig
    from ..types.json import Json
    from ..types.routes import Route

Task = Literal["speech", "transcription"]

DEFAULT_GATEWAY = "openrouter"
# Where each gateway creates keys (2026-11).
KEY_PAGES = {
    "openrouter": "https://openrouter.ai/settings/keys",
    "openai": "https://platform.openai.com/api-keys",
    "therouter": "https://therouter.ai",
    "arouter": "https://arouter.ai",
    "groq": "https://console.groq.com/keys",
}
SAMPLE_TEXT = "This is how I sound."
MAX_VOICES_SHOWN = 20
LOCAL_TIMEOUT_S = 10.0


class InitOptions(NamedTuple):
    """Options of `audiocli init`."""

    gateway: GatewayName = None
    key_stdin: Annotated[bool, typer.Option("--key-stdin", help="Read the API key from stdin.")] = False
    voice: Annotated[str | None, typer.Option("--voice", "-v", metavar="NAME", help="Default voice to store.")] = None
    completion: Annotated[
        bool, typer.Option("--completion/--no-completion", help="Install completion for the shell in use, or skip it.")
    ] = True
    assume_yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask no questions; use the options and defaults.")] = (
        False
    )
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", "-n", help="Print what would be written without asking, sending or writing anything."
        ),
    ] = False
    general: GeneralOptions = GeneralOptions()


class Step(NamedTuple):
    """The result of one step. `path` is the file that it wrote or would write."""

    name: str
    status: Literal["done", "unchanged", "skipped", "planned"]
    detail: str
    path: str | None = None


@with_options
def init(ctx: typer.Context, options: InitOptions) -> None:
    """Set up a gateway, its key, a default voice and shell completion."""
    app, console = open_app(ctx, options.general, quiet_json=True)
    is_interactive = not (options.assume_yes or options.dry_run)
    if is_interactive and not (app.stdin.isatty() and app.stderr.isatty()):
        raise UsageError(
            "init asks questions and needs a terminal",
            hint=f"use --yes, for example: audiocli init --gateway {DEFAULT_GATEWAY} --key-stdin --yes < key.txt",
        )
    from .keys import require_config_file

    require_config_file(app)
    gateway = _choose_gateway(app, options, is_interactive=is_interactive)
    setup = _Setup(app, console, options, is_interactive)
    setup.add(Step("gateway", "done" if not options.dry_run else "planned", gateway.name))
    setup.set_key(gateway)
    gateway = _get_gateway(app, gateway.name)
    setup.fetch_prices(gateway)
    setup.set_models(gateway)
    setup.set_voice(gateway)
    setup.install_completion()
    if options.general.as_json:
        steps: list[Json] = [dict(step._asdict()) for step in setup.steps]
        result: dict[str, Json] = {"gateway": gateway.name, "dry_run": options.dry_run, "steps": steps}
        console.write_json({"ok": True, "command": "init", **result, "warnings": []})
    elif gateway.requires_key and gateway.key is None:
        console.hint(f"to use {gateway.name}, run: audiocli keys set {gateway.name}")
    elif not options.dry_run:
        console.hint('try: audiocli speak "hello world"')


def _get_gateway(app: AppContext, name: str) -> GatewayConfig:
    """Return a gateway by name. Raises: UsageError: There is none of that name."""
    configs = {config.name: config for config in app.settings.gateways}
    if name not in configs:
        from ..routing import build_unknown_gateway_error

        raise build_unknown_gateway_error(name, configs)
    return configs[name]


def _choose_gateway(app: AppContext, options: InitOptions, *, is_interactive: bool) -> GatewayConfig:
    """Return the gateway of the option, else of the answer, else the first with a key, else `DEFAULT_GATEWAY`."""
    if options.gateway is not None:
        return _get_gateway(app, options.gateway)
    configs = app.settings.gateways
    default = next((config.name for config in configs if config.key is not None), DEFAULT_GATEWAY)
    if is_interactive:
        names = [config.name for config in configs]
        for number, config in enumerate(configs, 1):
            state = "no key needed" if not config.requires_key else "has a key" if config.key else "needs a key"
            page = KEY_PAGES.get(config.name, "")
            app.create_console().info_text(f"  {number}. {config.name:<12}  {state:<14}  {page}")
        default = choose(app, "Gateway", names, default)
    return _get_gateway(app, default)


class _Setup:
    """The steps after the choice of the gateway, in order. Each adds its result to `steps`."""

    def __init__(self, app: AppContext, console: Console, options: InitOptions, is_interactive: bool) -> None:
        self.steps: list[Step] = []
        self._app = app
        self._console = console
        self._options = options
        self._is_interactive = is_interactive

    def add(self, step: Step) -> None:
        """Add and report the result of a step."""
        self.steps.append(step)
        path = f"in {step.path}" if step.path and step.path not in step.detail else ""
        # The choice itself is not stored. JSON has the status that it had before.
        status = "chosen" if step.name == "gateway" else step.status
        self._console.result(f"{step.name:<11}{status:<9}", step.detail, path)

    # --- key ---------------------------------------------------------------------------------------------------------

    def set_key(self, gateway: GatewayConfig) -> None:
        """Store and verify the key of the gateway.

        Raises:
            AccessError: The key is refused, and there is no terminal to ask for another one.
        """
        path = str(self._app.keys_path)
        if gateway.dialect == "local" or (not gateway.requires_key and not self._options.key_stdin):
            self.add(Step("key", "skipped", f"{gateway.name} needs no key"))
        elif self._options.dry_run:
            is_set = gateway.key is not None and not self._options.key_stdin
            detail = f"set by {gateway.key_source}" if is_set else f"would verify and store a key for {gateway.name}"
            self.add(Step("key", "unchanged" if is_set else "planned", detail, None if is_set else path))
        elif self._options.key_stdin and not self._is_interactive:
            from .inputs import read_text

            self._store_key(gateway, read_text(self._app, (), "-", wait_for_end=True)[0])
        elif gateway.key is not None and self._accept_existing_key(gateway):
            self.add(Step("key", "unchanged", f"set by {gateway.key_source}"))
        elif not self._is_interactive:
            hint = f"run: audiocli keys set {gateway.name}"
            self.add(Step("key", "skipped", f"no key for {gateway.name}; {hint}"))
        else:
            self._ask_key(gateway)

    def _accept_existing_key(self, gateway: GatewayConfig) -> bool:
        """Verify the key that is set already. Return whether it stays. Raises: AccessError: It is refused."""
        from ..core.key_check import KeyStatus
        from .keys import request_key_check, warn_unless_verified

        result = request_key_check(self._app, self._console, gateway)
        if result.status is KeyStatus.REFUSED:
            error = AccessError(
                f"{gateway.name} refused the key set by {gateway.key_source}: {result.detail}", hint=gateway.key_hint
            )
            if not self._is_interactive:
                raise error
            self._console.error(error)
            return False
        warn_unless_verified(self._console, gateway.name, result)
        return True

    def _ask_key(self, gateway: GatewayConfig) -> None:
        """Ask for a key until the gateway accepts one, or until the answer is empty."""
        page = KEY_PAGES.get(gateway.name)
        source = f" Create one at {page}." if page else ""
        self._console.info_text(
            f"The key will be verified with {gateway.name} and stored in {self._app.keys_path}. "
            f"If {gateway.name} cannot verify it, it is stored with a warning.{source}"
        )
        while key := ask_secret(f"key for {gateway.name} (Enter skips)"):
            try:
                self._store_key(gateway, key)
                return
            except AudiocliError as error:
                self._console.error(error)
        self.add(Step("key", "skipped", f"no key for {gateway.name}"))

    def _store_key(self, gateway: GatewayConfig, text: str) -> None:
        """Verify and store a key. Raises: AudiocliError: It is invalid, refused, or cannot be stored."""
        from .. import credentials
        from ..core.key_check import KeyStatus
        from .keys import describe_stored_key, parse_key, store_key

        key = parse_key(self._console, text)
        path = self._app.keys_path
        is_stored = credentials.read(path).get(gateway.name) == key
        result = store_key(self._app, self._console, gateway, key, verify=True)
        self._app.reload_settings()
        if result is not None and result.status is KeyStatus.NOT_VERIFIED:
            state = f"stored, not verified: {result.detail}"
        else:
            state = describe_stored_key(gateway.name, result)
        self.add(Step("key", "unchanged" if is_stored else "done", state, str(path)))

    # --- prices ------------------------------------------------------------------------------------------------------

    def fetch_prices(self, gateway: GatewayConfig) -> None:
        """Fetch the model list with the prices, unless one of today is cached."""
        from .. import gateways
        from .models import ListingOptions, fetch_cards

        path = str(self._app.cache_directory)
        is_public = gateways.load_dialect(gateway.dialect).model_list_is_public
        if gateway.dialect == "local":
            self.add(Step("prices", "skipped", "the local engines are free"))
        elif self._options.dry_run:
            self.add(Step("prices", "planned", "would fetch the model list, which is free", path))
        elif gateway.key is None and gateway.requires_key and not is_public:
            self.add(Step("prices", "skipped", "the model list needs a key"))
        else:
            try:
                cards = fetch_cards(self._app, self._console, ListingOptions(gateway=gateway.name))
            except AudiocliError as error:
                self._console.warning(f"cannot fetch the prices of {gateway.name}: {error.message}")
                self.add(Step("prices", "skipped", "run later: audiocli models"))
                return
            self.add(Step("prices", "done", f"{len(cards)} models of {gateway.name}", path))

    # --- models ------------------------------------------------------------------------------------------------------

    def set_models(self, gateway: GatewayConfig) -> None:
        """Store the default models of the gateway if audiocli would choose another gateway without them."""
        settings = self._app.settings
        if gateway.requires_key and gateway.key is None and not self._options.dry_run:
            return
        others = [config for config in settings.gateways if config.key is not None and config.name != gateway.name]
        if gateway.dialect != "local":
            names = [config.name for config in settings.gateways]
            others = [config for config in others if names.index(config.name) < names.index(gateway.name)]
        path = str(self._app.config_path)
        tasks: tuple[tuple[Task, str, tuple[str, ...]], ...] = (
            ("speech", "speak", settings.speech_models),
            ("transcription", "transcribe", settings.transcription_models),
        )
        for task, table, configured in tasks:
            if configured:
                self.add(Step("models", "unchanged", f"{table}.models = {', '.join(configured)}", path))
            elif others:
                self._set_model(gateway, task, table, path)

    def _set_model(self, gateway: GatewayConfig, task: Task, table: str, path: str) -> None:
        from .. import config_editor

        route = self._find_default_route(gateway, task)
        name = f"{table}.models"
        if route is None:
            self.add(Step("models", "skipped", f"{gateway.name} has no default for {name}; set it with -m"))
        elif self._options.dry_run:
            self.add(Step("models", "planned", f"would set {name} = {route.ref}", path))
        elif self._is_interactive and not confirm(
            self._app, f"Make {route.ref} the default model ({name} in {path})?", default=True
        ):
            self.add(Step("models", "skipped", name))
        else:
            config_editor.set_value(self._app.config_path, (table, "models"), [route.ref])
            self._app.reload_settings()
            self.add(Step("models", "done", f"{name} = {route.ref}", path))

    def _find_default_route(self, gateway: GatewayConfig, task: Task) -> Route | None:
        """Return the route of the default model of a gateway; None if it has none."""
        from ..routing import RouteQuery, resolve_first_route

        try:
            query = RouteQuery(task, gateway=gateway.name)
            route = resolve_first_route(query, self._app.settings.gateways, self._app.catalog)
        except AudiocliError:
            return None
        if gateway.dialect == "local" and task == "speech" and self._options.voice is not None:
            from .. import gateways

            # The voice decides between the local engines.
            built_in = gateways.get_built_in(gateway.name)
            default = built_in.speech_model if built_in is not None else route.model
            model, voice = self._app.catalog.choose_local_speech(default, self._options.voice, True, None)
            return route._replace(model=model, voice=voice)
        return route

    # --- voice -------------------------------------------------------------------------------------------------------

    def set_voice(self, gateway: GatewayConfig) -> None:
        """Store the default voice, for a local engine as the voice of that engine.

        Raises:
            UsageError: The gateway does not list the voice of `--voice`.
        """
        from .. import config_editor

        settings, path = self._app.settings, str(self._app.config_path)
        voice = self._options.voice
        if voice is None and settings.speech_voice is not None:
            self.add(Step("voice", "unchanged", f"speak.voice = {settings.speech_voice}", path))
            return
        route = self._find_default_route(gateway, "speech")
        if voice is None and self._is_interactive and route is not None and gateway.dialect != "local":
            voice = self._ask_voice(gateway, route)
        if voice is None:
            self.add(Step("voice", "skipped", "the default of the model"))
            return
        key = ("speak", "voice")
        voices: tuple[str, ...] = ()
        if route is not None and gateway.dialect == "local":
            # Local engines ignore speak.voice, which names a voice of a gateway.
            key = ("voices", route.ref)
            voices = self._list_local_voices(route)
        elif route is not None:
            voices = self._app.catalog.get_voices(route)
        if voices and voice not in voices:
            from ..errors import suggest

            raise UsageError(
                f"unknown voice {voice!r}{suggest(voice, voices)}",
                hint=f"list the voices with: audiocli voices -g {gateway.name}",
            )
        if self._options.dry_run:
            self.add(Step("voice", "planned", f"would set {'.'.join(key)} = {voice}", path))
            return
        change = config_editor.set_value(self._app.config_path, key, [voice])
        self._app.reload_settings()
        self.add(Step("voice", "done" if change.is_changed else "unchanged", f"{'.'.join(key)} = {voice}", path))

    def _list_local_voices(self, route: Route) -> tuple[str, ...]:
        """Return the voices of a local engine, with the voice of the route if it names a variant of one.

        Empty if the engine cannot list them. Nothing is cached, because a dry run writes nothing.
        """
        from .. import gateways
        from ..core.catalog import MAX_LIST_BYTES
        from ..core.response_body import open_response, read_body

        dialect = gateways.load_dialect(route.dialect)
        query = dialect.build_voices_query(route)
        if query is None:
            return ()

        async def fetch(ctx: RunContext) -> bytes:
            async with open_response(query, route, ctx) as response:
                return await read_body(response.iter_bytes(), MAX_LIST_BYTES)

        try:
            body = self._app.run(
                fetch, read_timeout_s=LOCAL_TIMEOUT_S, info=self._console.info, debug=self._console.debug
            )
        except AudiocliError as error:
            self._console.debug(f"no list of local voices: {error.message}")
            return ()
        voices = dialect.parse_voices(body, route) or ()
        # espeak reads en_US as en-us, and its variants are not listed: en-us+f3.
        language = (route.voice or "").partition("+")[0].lower().replace("_", "-")
        is_variant = route.model == "espeak" and language in voices
        return (*voices, route.voice) if is_variant and route.voice else voices

    def _ask_voice(self, gateway: GatewayConfig, route: Route) -> str | None:
        """Ask for a voice, and offer a sample with its price. Return None to use the default of the model."""
        voices = self._app.catalog.get_voices(route)
        if not voices:
            return None
        shown = ", ".join(voices[:MAX_VOICES_SHOWN]) + (" …" if len(voices) > MAX_VOICES_SHOWN else "")
        self._console.info_text(f"Voices of {route.ref}: {shown}\nIt is stored in {self._app.config_path}.")
        while voice := ask(self._app, "Default voice (Enter uses the default of the model)"):
            if voice not in voices:
                self._console.info_text(f"unknown voice {voice!r}")
                continue
            self._offer_sample(gateway, route._replace(voice=voice))
            if confirm(self._app, f"Use {voice}?", default=True):
                return voice
        return None

    def _offer_sample(self, gateway: GatewayConfig, route: Route) -> None:
        """Offer to play a sample of a voice, with its price."""
        from ..core.speech import estimate
        from ..outputs.player import find_players
        from . import speak, speak_options

        if not find_players(self._app.variables) or (gateway.requires_key and gateway.key is None):
            return
        price = format_price(estimate(SAMPLE_TEXT, route, self._app.cache))
        if not confirm(self._app, f"Play a sample (price: {price})?", default=False):
            return
        options = speak_options.SpeakOptions(
            text=[SAMPLE_TEXT],
            models=[route.ref],
            voice=route.voice,
            play=True,
            gateway=GatewayOptions(name=gateway.name),
        )
        try:
            speak.run(self._app, self._console, options)
        except AudiocliError as error:
            self._console.error(error)

    # --- completion --------------------------------------------------------------------------------------------------

    def install_completion(self) -> None:
        """Install completion for the shell in use."""
        from .completion_install import detect_shell, plan_install, write_changes

        shell = detect_shell(self._app.variables)
        if not self._options.completion or shell is None:
            self.add(Step("completion", "skipped", "no completion for this shell" if shell is None else shell))
            return
        try:
            changes = plan_install(shell, self._app.variables)
            pending = [change for change in changes if change.content is not None]
            paths = ", ".join(str(change.path) for change in pending)
            if not pending:
                self.add(Step("completion", "unchanged", shell, str(changes[0].path)))
            elif self._options.dry_run:
                self.add(Step("completion", "planned", f"would install it for {shell}", paths))
            elif self._is_interactive and not confirm(
                self._app, f"Install completion for {shell} ({paths})?", default=True
            ):
                self.add(Step("completion", "skipped", shell))
            else:
                write_changes(changes)
                backups = "".join(f"; the previous file is {change.backup}" for change in pending if change.backup)
                self.add(Step("completion", "done", f"{shell}{backups}", paths))
        except AudiocliError as error:
            self._console.warning(error.message)
            self.add(Step("completion", "skipped", shell))
