"""Commands of the whole pipeline: start, stop, status, logs, init-env, init-airflow, doctor, clean."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from product_classifier.runtime.compose import Compose
    from product_classifier.runtime.layout import Layout

_SET_HELP = "A field of the trigger form, as image_epochs=5. Repeat it for several."


def _layout() -> "Layout":
    from product_classifier.core.workspace import Workspace
    from product_classifier.runtime.layout import Layout

    root = Workspace.find().root
    os.chdir(root)  # .env and relative paths in it belong to the checkout
    return Layout(root)


def _stack(layout: "Layout") -> "Compose | None":
    """Gives the container stack, unless the embedded run is up or containers can't be had here."""
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.choice import choose_runtime, find_engine
    from product_classifier.runtime.compose import Compose
    from product_classifier.runtime.supervision import Supervisor

    stack = Compose(layout, get_settings().compose_project_name)
    if Supervisor(layout).answers():
        return None
    if stack.values_file.exists():
        return stack if find_engine().problem is None else None
    return stack if choose_runtime(get_settings()).name == "docker" else None


def parse_assignments(values: list[str]) -> dict[str, Any]:
    """Reads `key=value` pairs; values are YAML, so 5 is a number and null is null.

    Raises:
        ConfigurationError: a pair is malformed.
    """
    import yaml

    from product_classifier.core.errors import ConfigurationError

    parsed = {}
    for pair in values:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigurationError(f"--set takes key=value. Received: {pair!r}.")
        try:
            parsed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed[key.strip()] = value
    return parsed


def start(
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SET_HELP)
    ] = None,
    data_source: Annotated[
        str | None,
        typer.Option(help="Where this run's catalogue comes from, instead of DATA_SOURCE."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Run every stage, changed or not.")
    ] = False,
    no_trigger: Annotated[
        bool, typer.Option("--no-trigger", help="Only start the services.")
    ] = False,
) -> None:
    """Starts the services and runs the pipeline.

    The services are Airflow, MLflow and the monitoring; the pipeline brings the API up. In containers where an engine
    with Compose answers, else as processes: PIPELINE_RUNTIME decides otherwise. Exit code 1: the run failed. 2: a
    parameter or a setting can't be used.
    """
    from rich.console import Console

    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.choice import choose_runtime
    from product_classifier.runtime.pipeline_start import PipelineStart, StartOptions

    params = parse_assignments(values or [])
    if data_source is not None:
        params["data_source"] = data_source
    if force:
        params["force"] = True
    layout, console = _layout(), Console(highlight=False)
    choice = choose_runtime(get_settings())
    run: PipelineStart
    if choice.name == "docker":
        from product_classifier.runtime.compose_start import ComposeRun

        run = ComposeRun(layout, console, choice)
    else:
        from product_classifier.runtime.start import EmbeddedRun

        run = EmbeddedRun(layout, console, choice)
    try:
        code = run.start(StartOptions(params, trigger=not no_trigger))
    except KeyboardInterrupt:
        run.say("The services and the run go on: `make status` shows them, `make stop` ends them.")
        raise typer.Exit(130) from None
    raise typer.Exit(code)


def stop() -> None:
    """Ends everything that `start` started.

    Data and volumes stay.
    """
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.start import stop as stop_processes

    layout = _layout()
    ran = stop_processes(layout)
    if _stack(layout) is not None:
        from product_classifier.runtime.compose_start import stop_stack

        ran = stop_stack(layout, get_settings()) or ran
    typer.echo("Stopped." if ran else "Nothing ran.")


def status() -> None:
    """Shows the services and the last run.

    Exit code 1: a service is not healthy.
    """
    from rich.console import Console

    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.status import print_status

    layout, console = _layout(), Console(highlight=False)
    if (stack := _stack(layout)) is not None:
        from product_classifier.runtime.compose_report import print_stack_status

        healthy = print_stack_status(stack, get_settings(), console)
    else:
        healthy = print_status(layout, get_settings(), console)
    if not healthy:
        raise typer.Exit(1)


def logs(
    service: Annotated[str | None, typer.Argument(help="One service; all if left out.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines of each log.")] = 50,
) -> None:
    """Shows the services' logs.

    Exit code 2: there is no such service; says which there are.
    """
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.monitoring.secret_addresses import hide_addresses
    from product_classifier.runtime.service_logs import choose_logs, follow_logs, read_logs

    layout = _layout()
    if (stack := _stack(layout)) is not None:
        from product_classifier.runtime.compose_report import show_stack_logs

        raise typer.Exit(max(show_stack_logs(stack, service, lines=lines, follow=follow)))
    files = choose_logs(layout, service)
    for line in hide_addresses(read_logs(files, lines), get_settings()):
        typer.echo(line)
    if follow:
        try:
            for line in hide_addresses(follow_logs(files), get_settings()):
                typer.echo(line)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def init_env() -> None:
    """Generates what is missing in .env for containers by hand.

    That is passwords and keys; image tag and owner of the checkout go to .state/compose.env.
    """
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.compose import Compose
    from product_classifier.runtime.compose_start import complete_stack_dotenv
    from product_classifier.runtime.compose_values import MONITORING, compose_values, profiles
    from product_classifier.runtime.monitoring.stack import prepare_stack
    from product_classifier.runtime.mounted_files import open_mounted_files

    layout = _layout()
    names = sorted(complete_stack_dotenv(layout).passwords)
    get_settings.cache_clear()
    settings = get_settings()
    layout.prepare()
    stack = Compose(layout, settings.compose_project_name)
    values = compose_values(layout, settings)
    if MONITORING in profiles(settings):
        values |= prepare_stack(layout, settings)
    stack.write_values(values)
    open_mounted_files(layout.root)
    typer.echo(f"Generated into .env: {', '.join(names)}." if names else "Nothing was missing.")


def init_airflow() -> None:
    """Creates or migrates Airflow's database, pool and logins."""
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.api_services import has_users
    from product_classifier.runtime.dotenv import complete_dotenv
    from product_classifier.runtime.initialise import initialise_airflow, require_environments

    layout = _layout()
    require_environments(layout)
    complete_dotenv(layout.dotenv, has_users=has_users(layout))
    get_settings.cache_clear()
    layout.prepare()
    migrated = initialise_airflow(layout, get_settings())
    done = "created or migrated" if migrated else "up to date already"
    typer.echo(f"Airflow in {layout.airflow_home}: {done}.")


def doctor() -> None:
    """Checks this machine and the settings.

    Says what to do. Exit code 1: something has to be done before a start.
    """
    from rich.console import Console

    from product_classifier.runtime.doctor import examine, print_findings

    if not print_findings(examine(_layout()), Console(highlight=False)):
        raise typer.Exit(1)


def clean(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Removes caches and .state, after a question.

    Never data, models, runs or the DVC remote.
    """
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.cleanup import clean as remove
    from product_classifier.runtime.cleanup import removable

    layout = _layout()
    found = removable(layout)
    if not found:
        typer.echo("Nothing to remove.")
        return
    for path in found:
        if path.name != "__pycache__":
            typer.echo(f"  {path.relative_to(layout.root)}")
    typer.echo(
        "With .state go Airflow's run history, the local MLflow server's database, the API's users "
        "and signing keys, and what Prometheus measured."
    )
    if not yes:
        typer.confirm("Remove these?", abort=True)
    typer.echo(f"Removed {len(remove(layout, get_settings()))} folders and files.")


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (start, stop, status, logs, doctor, clean):
        app.command()(command)
    app.command("init-env")(init_env)
    app.command("init-airflow")(init_airflow)
