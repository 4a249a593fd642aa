"""Settings: from the environment, then from `.env`. The only reader of either.

Lazy on purpose: importing reads nothing, and each setting is checked when it is first used. So a worker runs
without SECRET_KEY, and a wrong or missing setting is one line that names it, where it is needed.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

from core import urls
from core.errors import SettingError, SettingMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

ENV_FILE: str | None = ".env"  # in the working directory; tests read none
LEASE_BEATS: Final = 3  # a worker is dead when its beat stood still for this many intervals
_SECRET_BYTES: Final = 32
_HINT: Final = "in the environment or in .env (.env.example lists all settings)"


def _postgres_url(url: str) -> str:
    if not url.partition("://")[2]:
        raise ValueError(urls.LOOKS)
    urls.hosts(url)
    return url


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < _SECRET_BYTES:
        message = f"it must have at least {_SECRET_BYTES} bytes; make one with: openssl rand -hex 32"
        raise ValueError(message)
    return secret


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _networks(value: object) -> object:
    try:
        return tuple(map(ip_network, value)) if isinstance(value := _split(value), tuple) else value
    except ValueError:
        message = "it must be networks such as 192.168.0.0/16 or fd00::/8, no bit set beyond the /, separated by commas"
        raise ValueError(message) from None


def _cores(children: int) -> int:
    if children:
        return children
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Port = Annotated[int, Field(ge=1, le=65535)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]


class Settings(BaseSettings):
    """All settings, in the order of `.env.example`."""

    model_config = SettingsConfigDict(
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        defer_build=True,  # read one by one; to build all of them takes a start longer than to read all of them
    )

    database_url: Annotated[str, AfterValidator(_postgres_url)]
    redis_host_high: str
    redis_port_high: Port = 6379
    redis_username_high: str | None = None
    redis_password_high: SecretStr | None = None
    redis_tls_high: bool = False
    redis_host_low: str
    redis_port_low: Port = 6379
    redis_username_low: str | None = None
    redis_password_low: SecretStr | None = None
    redis_tls_low: bool = False
    secret_key: Annotated[SecretStr, AfterValidator(_long_enough)]
    algorithm: Literal["HS256", "HS384", "HS512"] = "HS256"
    access_token_expire_minutes: int = Field(default=15, ge=1, le=1440)
    heartbeat_interval_seconds: float = Field(default=5.0, ge=0.1, le=60)
    rate_limit_submit_per_minute: int = Field(default=1_000_000, ge=1)
    rate_limit_auth_per_minute: int = Field(default=30, ge=1)
    registration: Literal["open", "closed"] = "open"

    redis: bool = Field(default=True, validation_alias="TASKFLOW_REDIS")
    env: Literal["development", "production"] = Field(default="production", validation_alias="TASKFLOW_ENV")
    api_host: str = Field(default="127.0.0.1", validation_alias="TASKFLOW_API_HOST")
    api_port: int = Field(default=8080, ge=0, le=65535, validation_alias="TASKFLOW_API_PORT")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias="TASKFLOW_LOG_LEVEL"
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, validation_alias="TASKFLOW_METRICS_PORT")
    process_protection: bool = Field(default=True, validation_alias="TASKFLOW_PROCESS_PROTECTION")
    trusted_proxies: Networks = Field(default=(), validation_alias="TASKFLOW_TRUSTED_PROXIES")
    election: Literal["postgresql", "kubernetes"] = Field(default="postgresql", validation_alias="TASKFLOW_ELECTION")
    worker_queues: Names = Field(default=(), validation_alias="TASKFLOW_WORKER_QUEUES")
    worker_modules: Names = Field(default=(), validation_alias="TASKFLOW_WORKER_MODULES")
    worker_children: Annotated[int, AfterValidator(_cores)] = Field(
        default=0, ge=0, le=1024, validation_alias="TASKFLOW_WORKER_CHILDREN"
    )
    worker_slots: int = Field(default=100, ge=1, le=10_000, validation_alias="TASKFLOW_WORKER_SLOTS")
    worker_memory_mb: int | None = Field(default=None, ge=0, validation_alias="TASKFLOW_WORKER_MEMORY_MB")
    worker_drain_seconds: float = Field(default=600.0, ge=0, validation_alias="TASKFLOW_WORKER_DRAIN_SECONDS")
    worker_python: str = Field(default_factory=lambda: sys.executable, validation_alias="TASKFLOW_WORKER_PYTHON")

    worker_pass_env: Names = Field(default=(), validation_alias="TASKFLOW_WORKER_PASS_ENV")

    namespace: str = Field(default="", validation_alias="TASKFLOW_NAMESPACE")
    lease_name: str = Field(default="taskflow-scheduler", validation_alias="TASKFLOW_LEASE_NAME")
    pod_name: str = Field(default="", validation_alias="TASKFLOW_POD_NAME")
    pod_uid: str = Field(default="", validation_alias="TASKFLOW_POD_UID")
    node_name: str = Field(default="", validation_alias="TASKFLOW_NODE_NAME")
    pod_template: str = Field(default="", validation_alias="TASKFLOW_POD_TEMPLATE")

    release: str = Field(default="", validation_alias="TASKFLOW_RELEASE")
    watch_namespaces: Names = Field(default=(), validation_alias="TASKFLOW_WATCH_NAMESPACES")
    poll_seconds: float = Field(default=5.0, ge=0.5, le=60, validation_alias="TASKFLOW_POLL_SECONDS")
    worker_image: str = Field(default="", validation_alias="TASKFLOW_WORKER_IMAGE")
    worker_pod_file: str = Field(default="", validation_alias="TASKFLOW_WORKER_POD_FILE")
    worker_secrets: Names = Field(default=(), validation_alias="TASKFLOW_WORKER_SECRETS")
    worker_claims: Names = Field(default=(), validation_alias="TASKFLOW_WORKER_CLAIMS")
    default_queue: str = Field(default="", validation_alias="TASKFLOW_DEFAULT_QUEUE")

    admin_username: str = Field(default="", validation_alias="TASKFLOW_ADMIN_USERNAME")
    admin_password: SecretStr | None = Field(default=None, validation_alias="TASKFLOW_ADMIN_PASSWORD")
    admin_api_key: SecretStr | None = Field(default=None, validation_alias="TASKFLOW_ADMIN_API_KEY")

    @property
    def lease_seconds(self) -> float:
        """How long a worker's beat may stand still before the leader declares it dead."""
        return LEASE_BEATS * self.heartbeat_interval_seconds

    if TYPE_CHECKING:  # the names as the environment spells them work as well, for scripts
        DATABASE_URL: str
        REDIS_HOST_HIGH: str
        REDIS_PORT_HIGH: int
        REDIS_HOST_LOW: str
        REDIS_PORT_LOW: int
        SECRET_KEY: SecretStr
        ALGORITHM: str
        ACCESS_TOKEN_EXPIRE_MINUTES: int
        HEARTBEAT_INTERVAL_SECONDS: float
        RATE_LIMIT_SUBMIT_PER_MINUTE: int
        RATE_LIMIT_AUTH_PER_MINUTE: int
        REGISTRATION: str


def variable(name: str) -> str:
    """The environment variable of a setting: `worker_slots` is `TASKFLOW_WORKER_SLOTS`."""
    return cast("str | None", Settings.model_fields[name].validation_alias) or name.upper()


def _sources() -> tuple[EnvSettingsSource, ...]:
    try:
        return EnvSettingsSource(Settings), DotEnvSettingsSource(Settings, env_file=ENV_FILE)
    except (OSError, UnicodeDecodeError) as unreadable:
        message = "the settings cannot be read: .env is no readable text file"
        raise SettingError(message, fix="mend or remove .env") from unreadable


def _read(name: str, sources: tuple[EnvSettingsSource, ...]) -> Any:
    """One setting, alone: a mistake in another one is not this one's business."""
    field = Settings.model_fields[name]
    found = (source.get_field_value(field, name)[0] for source in sources)
    value = next((value for value in found if value is not None), None)
    if value is None:
        if field.is_required():
            raise SettingMissing(f"{variable(name)} is not set", fix=f"set it {_HINT}", field=name)
        value = field.get_default(call_default_factory=True)
        if not any(isinstance(each, (AfterValidator, BeforeValidator)) for each in field.metadata):
            return value
    kind: Any = Annotated[(field.annotation, name, *field.metadata)]  # the name, since it must have something
    try:
        return TypeAdapter[Any](kind).validate_python(value)
    except ValidationError as broken:
        says = broken.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        says = says[:1].lower() + says[1:]
        raise SettingError(f"{variable(name)} is wrong: {says}", fix=f"change it {_HINT}", field=name) from None


class _Lazy:
    """Stands for `Settings` and reads one field at a time."""

    def __init__(self) -> None:
        self._read: dict[str, Any] = {}
        self._sources: tuple[EnvSettingsSource, ...] = ()

    def __getattr__(self, asked: str) -> Any:
        if asked in self._read:
            return self._read[asked]
        name = asked.lower().removeprefix("taskflow_")
        if name not in Settings.model_fields:
            computed = getattr(Settings, name, None)
            if isinstance(computed, property) and computed.fget and not name.startswith("model_"):
                return computed.fget(self)
            message = f"there is no setting {asked!r}"
            raise AttributeError(message)
        if name not in self._read:
            self._sources = self._sources or _sources()
            self._read[name] = _read(name, self._sources)
        return self._read[name]

    def __setattr__(self, name: str, value: object) -> None:
        if name not in {"_read", "_sources"}:
            message = "settings are read, not written: set the variable, then call config.reload()"
            raise AttributeError(message)
        object.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        return sorted([*Settings.model_fields, "lease_seconds"])

    def __repr__(self) -> str:
        return "<settings of TaskFlow>"  # no values: some are secret, and none is read to print it


_lazy = _Lazy()
settings: Final[Settings] = cast("Settings", _lazy)


def given(name: str) -> bool:
    """Whether a setting that has no default is there. One that is there and wrong raises."""
    try:
        getattr(settings, name)
    except SettingMissing:
        return False
    return True


def require(*names: str) -> None:
    """Check these settings now: a service's main calls it before it opens anything."""
    for name in names:
        getattr(settings, name)


def reload() -> None:
    """Forget what was read; the next use reads the environment again."""
    _lazy._read, _lazy._sources = {}, ()  # noqa: SLF001 - the class is this module's own


@contextmanager
def override(**values: object) -> Iterator[None]:
    """Other values for a while, taken as they are: for tests, and for a process that sets its own."""
    if unknown := set(values) - set(Settings.model_fields):
        message = f"no such setting: {', '.join(sorted(unknown))}"
        raise AttributeError(message)
    before = _lazy._read  # noqa: SLF001 - the class is this module's own
    _lazy._read = {**before, **values}  # noqa: SLF001 - the class is this module's own
    try:
        yield
    finally:
        _lazy._read = before  # noqa: SLF001 - the class is this module's own
