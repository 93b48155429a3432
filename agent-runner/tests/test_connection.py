"""Tests how the worker connects to Temporal."""

import asyncio
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.service import TLSConfig

from stigmer_stubs import agentexecution_pb2 as pb
from tests.runners import until
from tests.stack import TEMPORAL, WORKER_KEY, Proxy, answer, needs_temporal, start_stack
from worker.connection import Connection, find_connection
from worker.settings import Settings, SettingsError


def find(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Connection:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return find_connection(Settings.load(), variables)


def problem(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        find(monkeypatch, **variables)
    (text,) = caught.value.problems
    return text


def write_profile(tmp_path: Path) -> str:
    file = tmp_path / "temporal.toml"
    file.write_text(
        '[profile.default]\naddress = "file:1"\nnamespace = "file"\napi_key = "file-key\\n"\n'
        '[profile.other]\naddress = "other:1"\n'
    )
    return str(file)


def test_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(monkeypatch) == Connection("localhost:7233", "default")


def test_temporals_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(
        monkeypatch,
        TEMPORAL_ADDRESS="ns.acct.tmprl.cloud:7233",
        TEMPORAL_NAMESPACE="ns.acct",
        TEMPORAL_API_KEY="key-for-temporal\n",
    )
    assert (found.address, found.namespace) == ("ns.acct.tmprl.cloud:7233", "ns.acct")
    assert (found.api_key, found.tls) == ("key-for-temporal", True)
    assert "key-for-temporal" not in repr(found)
    assert str(found) == "ns.acct.tmprl.cloud:7233 with TLS, namespace `ns.acct`"


def test_the_key_works_with_this_projects_address(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(monkeypatch, TEMPORAL_SERVICE_ADDRESS="t:1", TEMPORAL_API_KEY="k-12345678")
    assert (found.address, found.api_key, found.tls) == ("t:1", "k-12345678", True)


def test_two_addresses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"TEMPORAL_ADDRESS": "t:1", "TEMPORAL_SERVICE_ADDRESS": "t:1"}
    assert find(monkeypatch, **same).address == "t:1"
    assert problem(monkeypatch, **same | {"TEMPORAL_SERVICE_ADDRESS": "other:1"}) == (
        "TEMPORAL_ADDRESS and TEMPORAL_SERVICE_ADDRESS differ: set only one of them"
    )


def test_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write_profile(tmp_path)
    found = find(monkeypatch, TEMPORAL_CONFIG_FILE=file)
    assert (found.address, found.namespace, found.api_key) == ("file:1", "file", "file-key")
    assert found.tls is True
    other = find(monkeypatch, TEMPORAL_CONFIG_FILE=file, TEMPORAL_PROFILE="other")
    assert (other.address, other.namespace, other.warnings) == ("other:1", "default", ())


@pytest.mark.parametrize(
    "address", ["[::1:7233", "::1:7233", "host", "host:0", "host:x", "http://host:7233", "[1.2]:1"]
)
def test_the_address_of_a_profile_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text(f'[profile.default]\naddress = "{address}"\n')
    assert problem(monkeypatch, TEMPORAL_CONFIG_FILE=str(file)) == (
        "the address of Temporal's profile should be host:port, such as localhost:7233"
    )
    # It does not matter if it is replaced.
    assert find(monkeypatch, TEMPORAL_SERVICE_ADDRESS="mine:1").address == "mine:1"


def test_an_address_of_a_profile_that_can_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.default]\naddress = " [::1]:7233 "\napi_key = "k-12345678"\n')
    found = find(monkeypatch, TEMPORAL_CONFIG_FILE=str(file))
    assert (found.address, found.tls) == ("[::1]:7233", False)


def test_the_secrets_of_a_profile_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text(
        '[profile.default]\naddress = "file:1"\napi_key = "key-of-a-profile"\n'
        '[profile.default.grpc_meta]\nauthorization = "Bearer 12345"\nplace = "somewhere"\n'
        '[profile.default.tls]\nclient_cert_data = "cert"\nclient_key_data = "private-key"\n'
    )
    assert find(monkeypatch, TEMPORAL_CONFIG_FILE=str(file)).secrets == [
        ("TEMPORAL_API_KEY", "key-of-a-profile"),
        ("TEMPORAL_TLS_CLIENT_KEY", "private-key"),
        ("TEMPORAL_GRPC_META_AUTHORIZATION", "Bearer 12345"),
    ]
    assert find(monkeypatch, TEMPORAL_PROFILE="", TEMPORAL_API_KEY="local").secrets == []


def test_variables_replace_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write_profile(tmp_path)
    found = find(
        monkeypatch,
        TEMPORAL_CONFIG_FILE=file,
        TEMPORAL_SERVICE_ADDRESS="mine:1",
        TEMPORAL_NAMESPACE="mine",
    )
    assert (found.address, found.namespace) == ("mine:1", "mine")
    assert found.warnings == (
        "TEMPORAL_SERVICE_ADDRESS replaces the address of the profile: using mine:1",
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TEMPORAL_CONFIG_FILE": "/nope"}, "TEMPORAL_CONFIG_FILE `/nope` does not exist"),
        ({"TEMPORAL_PROFILE": "nope"}, "TEMPORAL_… Profile 'nope' not found"),
        ({"TEMPORAL_SERVICE_ADDRESS": "[1.2]:1"}, "TEMPORAL_SERVICE_ADDRESS should be host:port"),
        ({"TEMPORAL_ADDRESS": "[1.2]:1"}, "TEMPORAL_ADDRESS should be host:port"),
        ({"TEMPORAL_TLS": "maybe"}, "TEMPORAL_TLS input should be a valid boolean"),
        ({"TEMPORAL_TLS": "false", "TEMPORAL_API_KEY": "k", "TEMPORAL_ADDRESS": "t:1"},
         "TEMPORAL_TLS must not be false: the key for Temporal would be sent without TLS"),
        ({"TEMPORAL_TLS_CLIENT_CERT_DATA": "x"}, "must both be set"),
        ({"TEMPORAL_TLS_CLIENT_CERT_PATH": "/nope", "TEMPORAL_TLS_CLIENT_KEY_DATA": "x"},
         "TEMPORAL_TLS_… `/nope` cannot be read: No such file or directory"),
        ({"TEMPORAL_TLS_CLIENT_CERT_PATH": "/x", "TEMPORAL_TLS_CLIENT_CERT_DATA": "x"},
         "Cannot specify both"),
        ({"TEMPORAL_TLS_DISABLE_HOST_VERIFICATION": "true"}, "is not supported"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    assert words in problem(monkeypatch, **variables)


def test_a_key_without_tls_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(monkeypatch, TEMPORAL_TLS="false", TEMPORAL_API_KEY="k-12345678")
    assert (found.api_key, found.tls) == ("k-12345678", False)


@pytest.mark.parametrize(
    "name", ["authorization", "Proxy-Authorization", "x-api-key", "x_auth_token", "client-secret"]
)
def test_a_credential_in_metadata_is_treated_as_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "temporal.toml"
    metadata = f'[profile.default.grpc_meta]\n{name} = "Bearer 12345"\n'
    file.write_text(f'[profile.default]\naddress = "t:1"\n{metadata}')
    sent = name.lower().replace("_", "-")
    refusal = (
        f"TEMPORAL_TLS must be true: the metadata `{sent}` for Temporal would be sent without TLS"
    )
    variables = {"TEMPORAL_CONFIG_FILE": str(file)}
    assert problem(monkeypatch, **variables) == refusal
    assert problem(monkeypatch, **variables, TEMPORAL_TLS="false") == refusal
    found = find(monkeypatch, **variables, TEMPORAL_TLS="true")
    variable = f"TEMPORAL_GRPC_META_{sent.upper().replace('-', '_')}"
    assert found.secrets == [(variable, "Bearer 12345")]
    file.write_text(f'[profile.default]\naddress = "localhost:1"\n{metadata}')
    assert find(monkeypatch, **variables, TEMPORAL_TLS="false").metadata == {sent: "Bearer 12345"}


def test_other_metadata_needs_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(
        monkeypatch,
        TEMPORAL_ADDRESS="t:1",
        TEMPORAL_GRPC_META_TEMPORAL_NAMESPACE="mine",
        TEMPORAL_GRPC_META_AUTHOR="somebody",
    )
    assert found.metadata == {"temporal-namespace": "mine", "author": "somebody"}
    assert (found.tls, found.secrets) == (False, [])


@dataclass
class Certificates:
    """The files of a CA, and of a server and a client that it has certified."""

    folder: Path

    def __post_init__(self) -> None:
        self._run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca",
                  "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        for name in ("server", "client"):
            (self.folder / "extensions").write_text("subjectAltName=DNS:localhost\n")
            self._run("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                      "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
            self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                      "-CAcreateserial", "-days", "2", "-extfile", "extensions",
                      "-out", f"{name}.pem")  # fmt: skip

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

    @property
    def server(self) -> ssl.SSLContext:
        """For a server that accepts every client."""
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(self.folder / "ca.pem")
        )
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        context.set_alpn_protocols(["h2"])
        return context

    @property
    def strict_server(self) -> ssl.SSLContext:
        """For a server that only accepts clients with a certificate of the CA."""
        context = self.server
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.mark.image
@needs_temporal
async def test_a_temporal_that_requires_a_client_certificate(tmp_path: Path) -> None:
    async with start_stack(tmp_path / "workspace") as stack:
        certificates = Certificates(stack.root)
        in_worker = stack.sandbox_in_worker("x").parent
        proxy = Proxy(TEMPORAL, certificates.strict_server)
        await proxy.start()
        address = {
            "TEMPORAL_SERVICE_ADDRESS": "",
            "TEMPORAL_ADDRESS": f"localhost:{proxy.port}",
        }
        ca = {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(in_worker / "ca.pem")}
        client = {
            "TEMPORAL_TLS_CLIENT_CERT_PATH": str(in_worker / "client.pem"),
            "TEMPORAL_TLS_CLIENT_KEY_DATA": (stack.root / "client.key").read_text(),
        }
        for count, wrong in enumerate((address, address | ca, address | client)):
            starting = asyncio.create_task(stack.runner(**wrong))
            await until(lambda count=count: len(stack.runners) > count)  # type: ignore[misc]
            runner = stack.runners[-1]
            await runner.until_logged("waiting for Temporal at localhost:")
            starting.cancel()
            await runner.remove()
            assert not any("polling" in line for line in runner.log)
        runner = await stack.runner(**address, **ca, **client)
        assert any(f"localhost:{proxy.port} with TLS, namespace" in line for line in runner.log)
        assert "PRIVATE KEY" not in "".join(runner.log)
        line = client["TEMPORAL_TLS_CLIENT_KEY_DATA"].splitlines()[1]
        status = await stack.run(f"run: echo hello {line}", "tls")
        assert "hello [secret TEMPORAL_TLS_CLIENT_KEY]" in answer(status)
        assert line not in str(status) + "".join(runner.log)
        assert await runner.end() == 0
        await proxy.stop()


@pytest.mark.image
@needs_temporal
async def test_a_stigmer_server_with_tls_and_a_key(tmp_path: Path) -> None:
    async with start_stack(tmp_path / "workspace") as stack:
        certificates = Certificates(stack.root)
        proxy = Proxy(f"127.0.0.1:{stack.server.port}", certificates.server)
        await proxy.start()
        cloud = {
            "MODE": "cloud",
            "SSL_CERT_FILE": str(stack.sandbox_in_worker("x").parent / "ca.pem"),
            "STIGMER_BACKEND_ENDPOINT": f"https://localhost:{proxy.port}",
        }
        refused = await stack.runner(**cloud, STIGMER_API_KEY="another-key")
        execution_id = await stack.create("run: echo hello")
        returned = await stack.server.workflow(execution_id).result()
        assert returned.phase == pb.EXECUTION_FAILED
        assert "UNAUTHENTICATED" in returned.error
        await refused.remove()
        runner = await stack.runner(**cloud)
        assert "hello" in answer(await stack.run("run: echo hello"))
        log = "".join(refused.log + runner.log)
        assert "another-key" not in log
        assert WORKER_KEY not in log
        assert await runner.end() == 0
        await proxy.stop()


def test_certificates_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(name)
    found = find(
        monkeypatch,
        TEMPORAL_TLS_SERVER_CA_CERT_PATH=str(tmp_path / "ca"),
        TEMPORAL_TLS_CLIENT_CERT_PATH=str(tmp_path / "cert"),
        TEMPORAL_TLS_CLIENT_KEY_PATH=str(tmp_path / "key"),
        TEMPORAL_TLS_SERVER_NAME="name",
    )
    assert found.tls == TLSConfig(
        server_root_ca_cert=b"ca", domain="name", client_cert=b"cert", client_private_key=b"key"
    )
