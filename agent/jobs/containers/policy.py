"""What a compose stack may ask for: judged from the document that docker compose makes of its file. Decisions only.

A key is allowed when it is known what it can do to the machine. Everything else is refused, so that a key of a newer
compose is refused until somebody has looked at it.
"""

import json
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from agent.base.containers import SHARED_MEMORY, Mount
from agent.config.faults import LONGEST_SHOWN, Fault

HARMLESS: Mapping[str, tuple[str, ...]] = {
    "what runs inside, and as whom": (
        *("attach", "command", "domainname", "entrypoint", "environment", "group_add"),
        *("healthcheck", "hostname", "image", "init", "labels", "platform", "stdin_open"),
        *("stop_grace_period", "stop_signal", "tty", "user", "working_dir"),
    ),
    "when it is pulled, started and repeated, by compose and within the job": (
        *("depends_on", "profiles", "pull_policy", "pull_refresh_after", "restart", "scale"),
    ),
    "names and addresses that only its own containers see": (
        *("dns", "dns_opt", "dns_search", "expose", "extra_hosts", "links", "mac_address"),
    ),
    "limits, and memory of its own": (
        *("blkio_config", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_shares"),
        *("cpus", "cpuset", "mem_limit", "mem_reservation", "mem_swappiness", "memswap_limit"),
        *("pids_limit", "shm_size", "tmpfs"),
    ),
    "fewer rights": ("cap_drop", "read_only"),
    "files whose definitions are judged": ("configs", "secrets"),
}
"""Keys of a service that may have any value, by the reason."""

CAPABILITIES = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_RAW"),
        *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
"""The default capabilities of a container: `cap_add` after `cap_drop: [ALL]` may give them back."""

ULIMITS = frozenset(
    {
        *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nofile", "nproc"),
        *("rss", "sigpending", "stack"),
    }
)
"""All but those for real-time priority, with which a program can use up the machine's processor time."""

SYSCTLS = frozenset(
    {
        "net.core.somaxconn",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_syncookies",
        "net.ipv6.conf.all.disable_ipv6",
    }
)
"""Settings that belong to a network namespace."""

LOG_DRIVERS = frozenset({"json-file", "local", "none"})
"""Those that keep the log with the container; the others send it elsewhere, with the machine's rights."""

CLOCK = frozenset({"/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo"})
"""What containers may read of the machine's own files: its time zone."""

_OBEYED = re.compile(
    r"(?<![\w.])((?:DOCKER|BUILDKIT|BUILDX)_\w+|COMPOSE_(?!PROJECT_NAME|PROFILES|FILE|PATH_SEP)\w+)\s*[=:]"
)
_COMMENT = re.compile(r"""^[ \t]*#[^"'\n]*$""", re.MULTILINE)
"""A line that is a comment for sure: one with a quote may be the end of a text."""

_OTHER_FILES = re.compile(r"""(?:^|[\s{,\[?'"])(include|extends)["']?\s*:""")
_HIDDEN_KEYS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r'"(?:[^"\\\n]|\\.)*\\[xuU](?:[^"\\\n]|\\.)*"\s*:',  # letters as numbers
        r"(?:^[\s-]*|[{,\[]\s*)\?",  # a key that need not be on one line
        r"(?:^|[\s{,\[?])\*[\w-]+\s*:(?:\s|$)",  # a key from elsewhere in the file
        r"(?:^|[\s{,\[?])!(?:<|!(?!(?:str|int|float|bool|null|map|seq)\b)\S)",  # a key in base64
        r"^%",  # another name for a tag
    )
)
"""The ways in which YAML can write a key without its letters."""

Rule = Callable[[Any, "Stack", str], Iterator[Fault]]
"""Yields what is wrong with a value: given the value, the stack, and the value's key."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is judged.

    Attributes:
        file: The compose file, as the job names it.
        project: The project's name.
        service: The job's service.
        tree: Where the release's files are, without symbolic links in the path.
        mounts: The folders of the job, which it gets from the agent.
        real: Returns a path with its symbolic links resolved.
    """

    file: str
    project: str
    service: str
    tree: str
    mounts: Collection[Mount]
    real: Callable[[str], str]

    def has(self, path: str) -> bool:
        """Tell whether a path is in the release, and passes through no link, which may change."""
        plain = posixpath.normpath(path)
        return _is_below(plain, self.tree) and self.real(path) == plain

    def shown(self, path: str) -> str:
        """Return a path relative to the release's folder, where it is in it."""
        return posixpath.relpath(path, self.tree) if _is_below(path, self.tree) else path

    def fault(self, key: str, value: object, problem: str, remedy: str) -> Fault:
        """Return the fault that a key has this value."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
        return Fault(self.file, key, f"{text}: {problem}", remedy)


def text_faults(text: bytes, stack: Stack) -> tuple[Fault, ...]:
    """Return why compose would read other files than this one, or might without a visible key.

    The text is judged because compose merges what a file includes and extends: its document does not show from where
    that came, which may be any file that the agent can read.
    """
    one_file = "write the stack as one file: docker compose config prints it"
    try:
        shown = _COMMENT.sub("", text.decode())
    except UnicodeDecodeError:
        return (Fault(stack.file, "", "is not UTF-8", "save it as UTF-8"),)
    faults = [
        Fault(stack.file, key, "reads other files, of the machine as well", one_file)
        for key in sorted({match.group(1) for match in _OTHER_FILES.finditer(shown)})
    ]
    faults += [
        Fault(stack.file, match.group().strip(), "may hide a key", "write keys as plain words")
        for match in filter(None, (pattern.search(shown) for pattern in _HIDDEN_KEYS))
    ]
    return tuple(faults)


def dotenv_faults(text: str, source: str) -> tuple[Fault, ...]:
    """Return the variables of compose itself that the `.env` beside a compose file sets."""
    return tuple(
        Fault(source, name, "tells docker compose which engine and programs to use", "remove it")
        for name in sorted({match.group(1) for match in _OBEYED.finditer(_COMMENT.sub("", text))})
    )


def named_files(service: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the keys by which a service takes variables and labels from files, and these: paths, or tables with one."""
    for key in ("env_file", "label_file"):
        yield key, _listed(service.get(key))


def mounts_of_release(service: Mapping[str, Any], tree: str) -> dict[str, str]:
    """Return the folders of the release that a service may write to, by their path in it."""
    return {
        posixpath.normpath(str(volume["target"])): posixpath.relpath(str(volume["source"]), tree)
        for volume in _volumes(service, "bind")
        if not volume.get("read_only") and _is_below(str(volume.get("source", "")), tree)
    }


def volumes_of(service: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths in a service of the volumes that are removed with its stack."""
    return tuple(
        str(volume["target"])
        for volume in _volumes(service, "volume")
        if not volume.get("read_only")
    )


def _volumes(service: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    """Yield a service's mounts of a kind, in the long form that compose prints."""
    for volume in _listed(service.get("volumes")):
        if isinstance(volume, dict) and volume.get("type") == kind:
            yield volume


def place_in_release(path: str, mounted: Mapping[str, str]) -> str | None:
    """Return the folder of the release that a service has at a path, or None."""
    around = [target for target in mounted if _is_below(path, target)]
    if not around:
        return None
    target = max(around, key=len)
    return posixpath.normpath(posixpath.join(mounted[target], posixpath.relpath(path, target)))


def file_fault(service: str, key: str, path: str, stack: Stack) -> Fault | None:
    """Return why a service must not take variables or labels from a file, or None."""
    if "$" not in path and stack.has(path):
        return None
    return stack.fault(
        f"services.{service}.{key}",
        stack.shown(path),
        "is not a file of the release, or is a link",
        "name a file below the release's folder, without variables in its path",
    )


def stack_faults(document: Mapping[str, Any], stack: Stack) -> tuple[Fault, ...]:
    """Return everything that a stack asks for and must not have.

    The document is what will run: `docker compose config --format json` of all files and all profiles.
    """
    return (*_judge(_STACK, document, stack, ""), *_replaceable(document, stack))


def _judge(
    rules: Mapping[str, Rule | None], table: Mapping[str, Any], stack: Stack, prefix: str
) -> Iterator[Fault]:
    """Judge each key of a table by its rule; None allows any value."""
    for key, value in table.items():
        if (
            key.startswith("x-") or not value
        ):  # compose ignores the former; the latter asks for nothing
            continue
        where = f"{prefix}{key}"
        if key not in rules:
            problem, remedy = _REFUSED.get(key, _UNKNOWN)
            yield stack.fault(where, value, problem, remedy)
        elif (rule := rules[key]) is not None:
            yield from rule(value, stack, where)


def _keys(rules: Mapping[str, Rule | None]) -> Rule:
    """Return the rule for a table with these keys."""

    def judge(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
        if isinstance(value, dict):
            yield from _judge(rules, value, stack, f"{where}.")
        else:
            yield stack.fault(where, value, *_UNKNOWN)

    return judge


def _each(rule: Rule) -> Rule:
    """Return the rule for a list, or for a table with names of the stack's own: one rule for each item."""

    def judge(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
        if isinstance(value, dict):
            items = [(f"{where}.{name}", item) for name, item in value.items()]
        else:
            items = [(where, item) for item in _listed(value)]
        for key, item in items:
            if item:
                yield from rule(item, stack, key)

    return judge


def _only(allowed: Callable[[Any], bool], problem: str, remedy: str) -> Rule:
    """Return the rule that allows certain values: of the key itself, of a list's items, or of a table's keys."""

    def judge(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
        for item in value if isinstance(value, dict) else _listed(value):
            if not allowed(item):
                yield stack.fault(where, item, problem, remedy)

    return judge


def _any_of(*words: str, own: str = "") -> Callable[[Any], bool]:
    """Return the test whether a value is one of the words, or has the prefix that names a service of the stack."""
    return lambda value: value in words or (own != "" and str(value).startswith(own))


def _in_release(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
    if not stack.has(str(value)):
        yield stack.fault(
            where, value, "is not in the release, or a link", "put it below the release's folder"
        )


def _own(rules: Mapping[str, Rule | None]) -> Rule:
    """Return the rule for a network or a volume; an external one gets a single fault."""

    def judge(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
        if isinstance(value, dict) and value.get("external"):
            yield stack.fault(f"{where}.external", value.get("name", True), *_REFUSED["external"])
        else:
            yield from _keys(rules)(value, stack, where)

    return judge


def _own_name(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
    key = where.partition(".")[2].removesuffix(".name")
    if value != f"{stack.project}_{key}":
        yield stack.fault(where, value, "may be the name of another stack's", "remove it")


def _context(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
    if not str(value).startswith("service:"):
        yield from _in_release(value, stack, where)


def _build(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
    yield from _keys(_BUILD)(value, stack, where)
    if isinstance(value, dict) and "dockerfile_inline" not in value:
        context, file = str(value.get("context", "")), str(value.get("dockerfile", "Dockerfile"))
        yield from _in_release(posixpath.join(context, file), stack, f"{where}.dockerfile")


def _volume(value: Any, stack: Stack, where: str) -> Iterator[Fault]:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in {"bind", "volume", "tmpfs", "image"}:
        yield stack.fault(where, value, *_UNKNOWN)
        return
    yield from _judge(_VOLUME, value, stack, f"{where}.")
    if kind == "bind":
        yield from _bind(value, stack, where)


def _bind(value: Mapping[str, Any], stack: Stack, where: str) -> Iterator[Fault]:
    source, target = str(value.get("source", "")), str(value.get("target", ""))
    if Mount(source, target) in stack.mounts or stack.has(source):
        return
    shown = f"{source}:{target}"
    if posixpath.basename(source) == "docker.sock":
        yield stack.fault(where, shown, *_REFUSED["use_api_socket"])
    elif source in CLOCK:
        if not value.get("read_only"):
            yield stack.fault(
                where, shown, "is a file of the machine, and would be writable", "append :ro"
            )
    elif _is_below(source, SHARED_MEMORY):
        yield stack.fault(where, shown, "is the machine's shared memory", "use shm_size")
    else:
        yield stack.fault(
            where,
            shown,
            "is a folder or file of the machine",
            "put the files below the release's folder, or use a named volume; results go to the job's output",
        )


def _is_below(path: str, folder: str) -> bool:
    return posixpath.isabs(path) and posixpath.commonpath((path, folder)) == folder


def _replaceable(document: Mapping[str, Any], stack: Stack) -> Iterator[Fault]:
    """Yield a fault for each path that a container can replace by a link before it is mounted.

    Only the job's service has for sure one container, which is started once: of others compose may start several, or
    one again.
    """
    services = _table(document, "services")
    mounted = [
        (name, volume)
        for name, service in sorted(services.items())
        for volume in _mounted(service, document)
    ]
    for (writer, folder), (reader, below) in permutations(mounted, 2):
        if folder.get("read_only") or writer == reader == stack.service:
            continue
        outer, inner = str(folder.get("source", "")), str(below.get("source", ""))
        if inner != outer and stack.has(outer) and _is_below(inner, outer):
            yield stack.fault(
                f"services.{reader}.volumes",
                stack.shown(inner),
                f'is in {stack.shown(outer)}, where the service "{writer}" can put a link to any folder in its place',
                f'mount {stack.shown(outer)} into "{writer}" with :ro, or mount folders that are not in each other',
            )


def _mounted(
    service: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Yield a service's bind mounts, and the files of its configs and secrets."""
    yield from _volumes(service, "bind")
    for kind in ("configs", "secrets"):
        for grant in _listed(service.get(kind)):
            name = grant.get("source") if isinstance(grant, dict) else grant
            file = _table(_table(document, kind), str(name)).get("file")
            if file:
                yield {"source": file, "read_only": True}


def _listed(value: Any) -> list[Any]:
    """Return a list as it is, a single value as a list, None as an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _is_capability(value: Any) -> bool:
    return str(value).upper().removeprefix("CAP_") in CAPABILITIES


_UNKNOWN = ("is not known to be harmless to the machine", "remove it")

_HOST = "is shared with the machine"
_REFUSED: Mapping[str, tuple[str, str]] = {
    "privileged": (
        "gives the container full access to the machine",
        "remove it; name what the program needs it for",
    ),
    "devices": ("gives the container the machine's hardware and disks", "remove it"),
    "device_cgroup_rules": ("gives the container the machine's hardware and disks", "remove it"),
    "gpus": ("gives the container the machine's hardware", "remove it"),
    "generic_resources": ("gives the container the machine's hardware", "remove it"),
    "userns_mode": ("makes root in the container root of the machine", "remove it"),
    "uts": (_HOST, "remove it; hostname names the container"),
    "cgroup_parent": ("removes the container's limits", "remove it; use mem_limit and cpus"),
    "runtime": ("replaces the engine's isolation", "remove it"),
    "annotations": ("are instructions to the container runtime", "use labels"),
    "volumes_from": ("mounts the volumes of any container", "name the volume in both services"),
    "external_links": (
        "connects to containers outside the stack",
        "put the service into this stack",
    ),
    "external": ("is outside the stack", "remove it; the stack gets one of its own"),
    "oom_kill_disable": ("can use up the machine's memory", "remove it; use mem_limit"),
    "cpu_rt_runtime": ("can use up the machine's processor time", "remove it; use cpus"),
    "cpu_rt_period": ("can use up the machine's processor time", "remove it; use cpus"),
    "use_api_socket": (
        "gives control of the engine, and so of the machine",
        "remove it; the machine starts jobs, and each container is a job or a service of one",
    ),
    "credential_spec": ("is read from the machine", "use secrets in jobs.toml"),
    "provider": ("runs a program on the machine", "make it a job of its own, with needs"),
    "models": ("is fetched and run outside the stack", "remove it; run the model in a service"),
    "driver_opts": (
        "are mount options, which reach any folder of the machine",
        "remove it, or use tmpfs",
    ),
    "ports": ("are opened on the machine", "remove it; services reach each other by name"),
    "ipam": ("may hide addresses that the machine needs", "remove it; use the services' names"),
    "ipv4_address": ("goes with ipam, which is refused", "use the services' names"),
    "ipv6_address": ("goes with ipam, which is refused", "use the services' names"),
    "ssh": ("gives the build the agent's SSH keys", "commit what it fetches, or use an image"),
    "entitlements": ("gives the build rights on the machine", "remove it"),
    "cache_to": ("may write any file of the machine", "remove it; the engine keeps a cache"),
    "cache_from": ("may read any folder of the machine", "remove it; the engine keeps a cache"),
    "tags": ("may replace an image that others use", "remove it; use image"),
}
"""Problem and remedy of what people ask for; every key that nothing here names is refused as well."""

_ULIMITS = _only(
    ULIMITS.__contains__,
    "can use up the machine's processor time",
    f"allowed: {', '.join(sorted(ULIMITS))}",
)
_ANY = dict.fromkeys
_BUILD: Mapping[str, Rule | None] = {
    **_ANY(("args", "dockerfile", "dockerfile_inline", "extra_hosts", "labels", "no_cache")),
    **_ANY(("platforms", "pull", "secrets", "shm_size", "target")),
    "context": _in_release,
    "additional_contexts": _each(_context),
    "network": _only(_any_of("default", "none"), _HOST, "remove it"),
    "ulimits": _ULIMITS,
}
_VOLUME: Mapping[str, Rule | None] = {
    **_ANY(("type", "source", "target", "read_only", "consistency", "volume", "tmpfs", "image")),
    "bind": _keys(
        {
            **_ANY(("create_host_path", "recursive", "selinux")),
            "propagation": _only(
                _any_of("private", "rprivate"),
                "shows the container's mounts to the machine",
                "remove it",
            ),
        }
    ),
}
_HOOKS = _each(_keys(_ANY(("command", "environment", "user", "working_dir"))))
_AMOUNTS = _keys(_ANY(("cpus", "memory", "pids")))
_SERVICE: Mapping[str, Rule | None] = {
    **_ANY(key for keys in HARMLESS.values() for key in keys),
    "build": _build,
    "cap_add": _only(
        _is_capability,
        "is not a default capability of containers",
        "remove it; the default ones are " + ", ".join(sorted(CAPABILITIES)),
    ),
    "cgroup": _only(_any_of("private"), _HOST, "remove it"),
    "deploy": _keys(
        {
            **_ANY(("endpoint_mode", "labels", "mode", "placement", "replicas")),
            **_ANY(("rollback_config", "update_config")),
            "resources": _keys({"limits": _AMOUNTS, "reservations": _AMOUNTS}),
        }
    ),
    "ipc": _only(
        _any_of("none", "private", "shareable", own="service:"), _HOST, "remove it; use shm_size"
    ),
    "logging": _keys(
        {
            "driver": _only(
                LOG_DRIVERS.__contains__,
                "sends the log elsewhere",
                "remove logging; the job's log has it",
            ),
            "options": None,
        }
    ),
    "network_mode": _only(
        _any_of("none", "bridge", own="service:"),
        "is a network of the machine or of another container",
        "remove it; services reach each other by name",
    ),
    "networks": _each(
        _keys(_ANY(("aliases", "gw_priority", "interface_name", "mac_address", "priority")))
    ),
    "oom_score_adj": _only(
        lambda value: isinstance(value, int) and value >= 0,
        "makes the kernel kill the machine's programs first",
        "remove it",
    ),
    "pid": _only(_any_of(own="service:"), _HOST, "remove it"),
    "post_start": _HOOKS,
    "pre_stop": _HOOKS,
    "security_opt": _only(
        _any_of("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"),
        "weakens the container's isolation",
        "remove it; a browser needs --no-sandbox and shm_size instead",
    ),
    "storage_opt": _keys({"size": None}),
    "sysctls": _only(
        SYSCTLS.__contains__,
        "is not known to belong to a network namespace",
        f"allowed: {', '.join(sorted(SYSCTLS))}",
    ),
    "ulimits": _ULIMITS,
    "volumes": _each(_volume),
}
_NETWORK: Mapping[str, Rule | None] = {
    **_ANY(("attachable", "enable_ipv4", "enable_ipv6", "internal", "labels")),
    "name": _own_name,
    "driver": _only(_any_of("bridge"), "joins a network of the machine", "remove driver"),
    "driver_opts": _only(
        _any_of("com.docker.network.driver.mtu"), "changes the machine's network", "remove it"
    ),
}
_NAMED_VOLUME: Mapping[str, Rule | None] = {
    "labels": None,
    "name": _own_name,
    "driver": _only(_any_of("local"), "is a program of the machine", "remove driver"),
}
_FILE: Mapping[str, Rule | None] = {
    **_ANY(("content", "environment", "labels", "name")),
    "file": _in_release,
}
_STACK: Mapping[str, Rule | None] = {
    "name": None,
    "services": _each(_keys(_SERVICE)),
    "networks": _each(_own(_NETWORK)),
    "volumes": _each(_own(_NAMED_VOLUME)),
    "configs": _each(_keys(_FILE)),
    "secrets": _each(_keys(_FILE)),
}
