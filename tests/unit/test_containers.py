"""The files for containers, as the tools that read them would, and beside what they speak of."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from msgspec import structs

from hasher.settings import SECRETS, Settings

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CONTAINERFILE = (ROOT / "Containerfile").read_text()
COMPOSE = {
    name: yaml.safe_load((ROOT / name).read_text())
    for name in ("compose.yaml", "compose.fleet.yaml")
}
MANIFEST = {
    one["kind"]: one
    for one in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
}
POD = MANIFEST["Deployment"]["spec"]["template"]["spec"]
SETTINGS = {field.encode_name for field in structs.fields(Settings)}


def require_valid(compose: Any) -> None:
    """Raise ValueError unless this is as the Compose specification says."""
    PyCompose.from_json(json.dumps(compose)).validate()


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_are_valid(name: str) -> None:
    require_valid(COMPOSE[name])


@pytest.mark.parametrize("fault", [{"services": {"a": {"imag": "a"}}}, {"volume": {}}])
def test_a_fault_in_a_compose_file_is_found(fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="does not start with"):
        require_valid(COMPOSE["compose.yaml"] | fault)


@pytest.mark.parametrize("name", COMPOSE)
def test_every_volume_is_declared_and_used(name: str) -> None:
    services = COMPOSE[name]["services"].values()
    used = {volume.partition(":")[0] for one in services for volume in one.get("volumes", ())}
    assert {volume for volume in used if not volume.startswith("./")} == set(
        COMPOSE[name]["volumes"]
    )


@pytest.mark.parametrize("kind", MANIFEST)
def test_the_manifest_is_valid(kind: str) -> None:
    newest = kubernetes_validate.latest_version()
    kubernetes_validate.validate(MANIFEST[kind], newest, strict=True)


def test_a_fault_in_the_manifest_is_found() -> None:
    newest = kubernetes_validate.latest_version()
    faulty = MANIFEST["Service"] | {"spec": {"port": 80}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(faulty, newest, strict=True)


def instances(name: str) -> list[dict[str, Any]]:
    """The services of a compose file that are hasher."""
    return [one for one in COMPOSE[name]["services"].values() if one["image"].startswith("hasher:")]


def test_everybody_means_this_version() -> None:
    images = [one["image"] for name in COMPOSE for one in instances(name)]
    images += [container["image"] for container in POD["containers"]]
    assert set(images) == {f"hasher:{VERSION}"}
    assert f'image.version="{VERSION}"' in CONTAINERFILE


def test_what_is_set_are_settings() -> None:
    (container,) = POD["containers"]
    named = {variable["name"] for variable in container["env"]}
    named |= {
        name for file in COMPOSE for one in instances(file) for name in one.get("environment", ())
    }
    named |= set(re.findall(r"^ +(HASHER_[A-Z_]+)=", CONTAINERFILE, re.MULTILINE))
    assert {"HASHER_STORE", "HASHER_HOST"} <= named
    assert named - SETTINGS - {f"{name}_FILE" for name in SECRETS} == set()


def test_the_pods_are_the_image_s_user_and_have_no_rights() -> None:
    (container,) = POD["containers"]
    assert (
        f"USER {POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}\n"
        in (CONTAINERFILE)
    )
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_secret_is_where_the_setting_says() -> None:
    (container,) = POD["containers"]
    (file,) = [one["value"] for one in container["env"] if one["name"] == "HASHER_STORE_FILE"]
    assert file == f"{container['volumeMounts'][0]['mountPath']}/store"


def test_a_pod_drains_before_it_is_killed() -> None:
    (container,) = POD["containers"]
    set_up = {one["name"]: one["value"] for one in container["env"]}
    drain = int(set_up["HASHER_DRAIN_SECONDS"])
    probe = container["readinessProbe"]
    assert probe["httpGet"]["path"] == "/readyz"
    assert drain >= probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert drain + 7 < POD["terminationGracePeriodSeconds"]


def test_nginx_finds_the_instances_of_the_compose_file() -> None:
    *_, script = COMPOSE["compose.fleet.yaml"]["services"]["nginx"]["command"]
    file = ROOT / "deploy" / "nginx.conf"
    command = (
        script.partition(">")[0].replace("\\\n", "").replace("/etc/nginx/hasher.conf", str(file))
    )
    configured = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=True
    ).stdout
    expected = file.read_text()
    for number, one in enumerate(instances("compose.fleet.yaml"), 1):
        address = one["networks"]["default"]["ipv4_address"]
        expected = expected.replace(f"127.0.0.1:800{number}", f"{address}:8000")
    assert configured == expected
    assert "server 127.0.0.1" not in configured
