"""The devserver's command line.

python -m devserver              serve until SIGTERM
python -m devserver ask "…"      create an execution, follow it, and print the answer
python -m devserver health       check whether executions can be created
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

from stigmer_stubs import temporal


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m devserver", description="A stigmer-server for development"
    )
    commands = parser.add_subparsers(dest="command")
    serve = commands.add_parser("serve", help="serve until SIGTERM; the default")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    serve.add_argument("--port", type=int, default=7234, help="the port for gRPC")
    serve.add_argument(
        "--model-port", type=int, default=7235, help="the port for the model and for /health"
    )
    serve.add_argument("--api-key", help="require this key from callers")
    serve.add_argument(
        "--temporal",
        default=os.environ.get("TEMPORAL_SERVICE_ADDRESS", temporal.DEFAULT_ADDRESS),
        help="the address of Temporal",
    )
    serve.add_argument(
        "--namespace",
        default=os.environ.get("TEMPORAL_NAMESPACE", temporal.DEFAULT_NAMESPACE),
        help="the Temporal namespace",
    )
    serve.add_argument(
        "--task-queue",
        default=temporal.WORKFLOW_TASK_QUEUE,
        help="the task queue of the workflows",
    )
    serve.add_argument(
        "--runner-task-queue",
        default=temporal.RUNNER_TASK_QUEUE,
        help="the task queue of the agent-runner",
    )
    serve.add_argument(
        "--resources", type=Path, help="a JSON file with a list of agents, sessions, skills, …"
    )
    ask = commands.add_parser("ask", help="create an execution and follow it")
    ask.add_argument("message", help="the request to the agent")
    ask.add_argument("--server", default="127.0.0.1:7234", help="the address of stigmer-server")
    ask.add_argument(
        "--session",
        default="",
        help="the id of the session to continue; if there is none, the name of a new session",
    )
    ask.add_argument("--agent", default="dev-agent", help="the id of the agent")
    ask.add_argument("--model", default="", help="a model to use instead of the runner's default")
    ask.add_argument(
        "--workspace", default="", help="the folder of the runner's sandboxes, to show in paths"
    )
    health = commands.add_parser("health", help="exit with 0 if executions can be created, else 1")
    health.add_argument(
        "--url", default="http://127.0.0.1:7235/health", help="the URL of the health check"
    )
    return parser


async def _serve(arguments: argparse.Namespace) -> None:
    from devserver.model import ModelServer
    from devserver.server import DevServer, Options
    from devserver.workflow import RunnerOptions

    options = Options(
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        temporal=arguments.temporal,
        namespace=arguments.namespace,
        task_queue=arguments.task_queue,
        runner=RunnerOptions(task_queue=arguments.runner_task_queue),
    )
    server = DevServer(options)
    if arguments.resources:
        server.store.load(arguments.resources)
    model = ModelServer(arguments.host, arguments.model_port)
    model.ready = lambda: server.ready
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    model.start()
    await server.start()
    logging.getLogger("devserver").info(
        "listening for gRPC on port %d, serving the model at http://%s:%d/v1",
        server.port,
        arguments.host,
        model.port,
    )
    await stop.wait()
    await server.stop()
    model.stop()


def _health(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (the user's own URL)
            print(answer.read().decode())
            return 0
    except (urllib.error.URLError, OSError) as error:
        print(f"unhealthy: {error}", file=sys.stderr)
        return 1


def main() -> int:
    """Run the command line, and return the exit code."""
    known = {"serve", "ask", "health", "-h", "--help"}
    words = sys.argv[1:]
    arguments = _parser().parse_args(words if words and words[0] in known else ["serve", *words])
    match arguments.command:
        case "ask":
            from devserver.ask import ask

            return asyncio.run(
                ask(
                    arguments.server,
                    arguments.message,
                    session=arguments.session,
                    agent=arguments.agent,
                    model=arguments.model,
                    workspace=arguments.workspace,
                    api_key=os.environ.get("STIGMER_API_KEY", ""),
                )
            )
        case "health":
            return _health(arguments.url)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    asyncio.run(_serve(arguments))
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stdout.flush()
    # Exit without finalizing the interpreter: the native threads of Temporal and gRPC could abort
    # the process during that.
    os._exit(code)
