"""All checks, in the order in which a run needs the parts."""

from agent.doctor import parts, servers
from agent.doctor.examine import Check

CHECKS = (
    Check("configuration", 10, parts.configuration),
    Check("state directory", 10, parts.state_directory),
    Check("git repository", 30, parts.repository),
    Check("release signers", 10, parts.signers),
    Check("uv", 15, parts.uv),
    Check("package indexes", 60, parts.indexes),
    Check("container engine", 25, parts.container_engine),
    Check("registries", 60, parts.registries),
    Check("chromedriver", 15, parts.chromedriver),
    Check("browser session", 180, parts.session),
    Check("store credentials", 60, servers.credentials),
    Check("store", 30, servers.store),
    Check("job secrets", 60, servers.secrets),
    Check("clock", 15, servers.clock),
    Check("metadata service", 10, servers.metadata),
    Check("power-off", 10, parts.power),
    Check("units", 20, parts.units),
    Check("healthchecks", 20, servers.healthchecks),
    Check("spool", 10, parts.spool),
)
