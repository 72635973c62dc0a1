"""Grafana, where it is installed: all of it provisioned from files."""

from pathlib import Path

from pydantic import SecretStr

from product_classifier.core.settings import Settings
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.targets import LOOPBACK

_PACKAGED_HOME = Path("/usr/share/grafana")


def grafana_environment(dashboards: Path, prometheus: str) -> dict[str, str]:
    """Gives what Grafana is told in the embedded run and in the container stack alike."""
    return {
        # Read by the provisioning files.
        "PROMETHEUS_URL": prometheus,
        "DASHBOARDS_PATH": str(dashboards),
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(dashboards / "service.json"),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_ANALYTICS_FEEDBACK_LINKS_ENABLED": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_SECURITY_DISABLE_GRAVATAR": "true",
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_LOG_MODE": "console",
    }


def grafana_command(program: Path) -> list[str]:
    """Gives the command line: packages keep Grafana's own files apart, its archive beside the program."""
    home = _PACKAGED_HOME if _PACKAGED_HOME.is_dir() else program.resolve().parents[1]
    server = [] if program.name == "grafana-server" else ["server"]
    return [str(program), *server, "--homepath", str(home)]


def embedded_environment(
    layout: Layout, settings: Settings, data: Path, password: SecretStr
) -> dict[str, str]:
    """Gives what Grafana is told in the embedded run; the password counts at its first start only."""
    source = layout.monitoring_source / "grafana"
    prometheus = f"http://{LOOPBACK}:{settings.prometheus_port}"
    return {
        **grafana_environment(source / "dashboards", prometheus),
        "GF_SERVER_HTTP_ADDR": LOOPBACK,
        "GF_SERVER_HTTP_PORT": str(settings.grafana_port),
        "GF_PATHS_DATA": str(data),
        "GF_PATHS_LOGS": str(data / "log"),
        "GF_PATHS_PLUGINS": str(data / "plugins"),
        "GF_PATHS_PROVISIONING": str(source / "provisioning"),
        "GF_SECURITY_ADMIN_PASSWORD": password.get_secret_value(),
    }
