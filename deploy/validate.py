#!/usr/bin/env python3
"""Checks the deployment files against each other and against the code, without a container engine.

- docker-compose.yml has the shape that the compose specification gives the keys it uses, every name it refers to
  exists, and every service keeps the house rules: read-only root, no rights, not root, a health check, secrets as
  files, nothing but MQTT published beyond this machine.
- The Prometheus, alert and Grafana files are well-formed.
- Every metric that an alert or a panel names exists in the code, by that name and kind, and so does every label
  value that it picks out.

Prints one line per fault and exits 1, or one line when all is well.
"""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
PUBLIC_PORTS = {8883, 8884}
# Prometheus itself makes these.
FOREIGN_METRICS = {"up"}
FOREIGN_LABELS = {"job", "instance"}


def main():
    faults = []
    check_compose(faults)
    check_prometheus(faults)
    check_provisioning(faults)
    check_metrics(faults)
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return 1
    print("deployment files agree with each other and with the code")
    return 0


# A shape is a type, a tuple of shapes (any of them), [shape] (a list of it), {"key": shape} (a mapping with these
# keys and no others), or {ANY_NAME: shape} (a mapping of names to it).

ANY_NAME = object()
DURATION = re.compile(r"(\d+(ms|s|m|h))+")
SCALAR = (str, int, float, bool, type(None))
ULIMIT = (int, {"soft": int, "hard": int})
SERVICE = {
    "build": {"context": str},
    "cap_drop": [str],
    "command": [str],
    "depends_on": {ANY_NAME: {"condition": str}},
    "environment": {ANY_NAME: SCALAR},
    "healthcheck": {
        "test": [str], "interval": DURATION, "timeout": DURATION, "retries": int, "start_period": DURATION,
    },
    "image": str,
    "logging": {"driver": str, "options": {ANY_NAME: str}},
    "networks": [str],
    "ports": [re.compile(r"(127\.0\.0\.1:)?\d+:\d+")],
    "read_only": bool,
    "restart": re.compile(r"no|always|on-failure|unless-stopped"),
    "secrets": [str],
    "security_opt": [str],
    "shm_size": str,
    "stop_grace_period": DURATION,
    "tmpfs": [str],
    "ulimits": {ANY_NAME: ULIMIT},
    "user": str,
    "volumes": [re.compile(r"[^:]+:/[^:]+(:ro)?")],
}
COMPOSE = {
    "name": str,
    "x-confined": dict,
    "services": {ANY_NAME: SERVICE},
    "networks": {ANY_NAME: {"internal": bool}},
    "volumes": {ANY_NAME: {}},
    "secrets": {ANY_NAME: {"file": str}},
}


def check_compose(faults):
    compose = read_yaml(ROOT / "docker-compose.yml", faults)
    if compose is None:
        return
    before = len(faults)
    check_shape(compose, COMPOSE, "docker-compose.yml", faults)
    if len(faults) > before:
        return  # the rules below rely on the shape
    for name, service in compose["services"].items():
        check_service(name, service, compose, faults)


def check_service(name, service, compose, faults):
    def rule(holds, text):
        if not holds:
            faults.append(f"docker-compose.yml: {name}: {text}")

    for key in ("networks", "secrets"):
        for used in service.get(key, []):
            rule(used in compose[key], f"{key} has no {used}")
    for used in service.get("depends_on", {}):
        rule(used in compose["services"], f"depends on {used}, which is not there")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            rule((ROOT / source).exists(), f"{source} does not exist")
            rule(volume.endswith(":ro"), f"{source} is mounted writable")
        else:
            rule(source in compose["volumes"], f"volumes has no {source}")

    rule(service.get("read_only") is True, "its root is writable")
    rule(service.get("cap_drop") == ["ALL"], "it keeps capabilities")
    rule("no-new-privileges:true" in service.get("security_opt", []), "it may gain rights")
    rule("healthcheck" in service, "it has no health check")
    rule(service.get("ulimits", {}).get("core") == 0, "it may dump its memory to disk")
    if "build" in service:
        dockerfile = (ROOT / "Dockerfile").read_text()
        rule(re.search(r"^USER (?!0\b|root\b)\S+", dockerfile, re.M), "its Dockerfile names no user")
    else:
        rule(re.fullmatch(r"[1-9]\d*:[1-9]\d*", service.get("user", "")), "it runs as root")
        rule(re.search(r":[^:/]*\d[^:/]*$", service["image"]), "its image names no version")
    for key, value in service.get("environment", {}).items():
        secret = re.search(r"PASSWORD|SECRET|TOKEN|DATABASE_URL", key)
        rule(not secret or str(value).startswith("/run/secrets/"), f"{key} is a secret in the environment")
    for port in service.get("ports", []):
        host = port.rsplit(":", 1)[0]
        rule(host.startswith("127.0.0.1:") or int(host) in PUBLIC_PORTS, f"{port} is open beyond this machine")


def check_shape(value, shape, at, faults):
    if isinstance(shape, tuple):
        if not any(fits(value, one) for one in shape):
            faults.append(f"{at}: unexpected {value!r}")
    elif isinstance(shape, re.Pattern):
        if not (isinstance(value, str) and shape.fullmatch(value)):
            faults.append(f"{at}: unexpected {value!r}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            faults.append(f"{at}: not a list")
            return
        for index, item in enumerate(value):
            check_shape(item, shape[0], f"{at}[{index}]", faults)
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            faults.append(f"{at}: not a mapping")
            return
        for key, item in value.items():
            if key not in shape and ANY_NAME not in shape:
                faults.append(f"{at}: unknown key {key}")
            else:
                check_shape(item, shape.get(key, shape.get(ANY_NAME)), f"{at}: {key}", faults)
    # bool is an int to Python, not to compose.
    elif not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
        faults.append(f"{at}: {value!r} is not {shape.__name__}")


def fits(value, shape):
    faults = []
    check_shape(value, shape, "", faults)
    return not faults


def check_prometheus(faults):
    config = read_yaml(DEPLOY / "prometheus.yml", faults)
    alerts = read_yaml(DEPLOY / "alerts.yml", faults)
    if config is None or alerts is None:
        return
    if "alerts.yml" not in config.get("rule_files", []):
        faults.append("deploy/prometheus.yml: alerts.yml is not among its rule files")
    compose = read_yaml(ROOT / "docker-compose.yml", faults) or {}
    for job in config.get("scrape_configs", []):
        for static in job["static_configs"]:
            for target in static["targets"]:
                if target.split(":")[0] not in compose.get("services", {}):
                    faults.append(f"deploy/prometheus.yml: {target} is not a service")
    names = [rule.get("alert") for group in alerts["groups"] for rule in group["rules"]]
    for name in {name for name in names if names.count(name) > 1}:
        faults.append(f"deploy/alerts.yml: {name} is there twice")
    for group in alerts["groups"]:
        for rule in group["rules"]:
            at = f"deploy/alerts.yml: {rule.get('alert')}"
            if not {"alert", "expr", "for", "labels", "annotations"} <= rule.keys():
                faults.append(f"{at}: incomplete")
            elif rule["labels"].get("severity") not in ("page", "ticket"):
                faults.append(f"{at}: its severity is neither page nor ticket")
            elif not {"summary", "action"} <= rule["annotations"].keys():
                faults.append(f"{at}: it does not say what happened or what to do")


def check_provisioning(faults):
    for path in sorted((DEPLOY / "grafana/provisioning").glob("*/*.yml")):
        parsed = read_yaml(path, faults)
        if parsed is not None and parsed.get("apiVersion") != 1:
            faults.append(f"{path.relative_to(ROOT)}: apiVersion is not 1")
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        panels = read_json(path, faults).get("panels", [])
        ids = [panel["id"] for panel in panels]
        if len(ids) != len(set(ids)):
            faults.append(f"{path.relative_to(ROOT)}: two panels share an id")


def check_metrics(faults):
    code = code_text()
    # metrics-exporter-prometheus renders a histogram as a summary unless it is given buckets.
    bucketed = set(re.findall(r'Matcher::Full\("(\w+)"', code))
    for path, expression in expressions(faults):
        for name in re.findall(r"\b(?:sotto_\w+|up)\b", strip_labels(expression)):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            known = name in FOREIGN_METRICS or f'"{name}"' in code or f'"{base}"' in code
            if not known:
                faults.append(f"{path}: no metric {name} in the code")
        for label, value in re.findall(r'(\w+)!?="(\w+)"', expression):
            if label not in FOREIGN_LABELS and f'"{value}"' not in code:
                faults.append(f"{path}: nothing in the code sets {label} to {value}")
        if "quantile=" in expression and any(name in expression for name in bucketed):
            faults.append(f"{path}: the code gives this histogram buckets, so there is no quantile label")
        for name in re.findall(r"\b(sotto_\w+)_bucket\b", expression):
            if name not in bucketed:
                faults.append(f"{path}: the code gives {name} no buckets")


def expressions(faults):
    alerts = read_yaml(DEPLOY / "alerts.yml", faults) or {"groups": []}
    for group in alerts["groups"]:
        for rule in group["rules"]:
            yield f"deploy/alerts.yml: {rule['alert']}", str(rule["expr"])
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        for panel in read_json(path, faults).get("panels", []):
            for target in panel.get("targets", []):
                yield f"{path.relative_to(ROOT)}: {panel['title']}", target["expr"]


def strip_labels(expression):
    return re.sub(r"\{[^}]*\}", "", expression)


def code_text():
    crates = workspace_members()
    files = sorted(path for crate in crates for path in (ROOT / crate / "src").rglob("*.rs"))
    return "\n".join(path.read_text() for path in files)


def workspace_members():
    manifest = (ROOT / "Cargo.toml").read_text()
    members = re.search(r"^members = \[(.*?)\]", manifest, re.M | re.S)
    return re.findall(r'"([^"]+)"', members.group(1))


def read_yaml(path, faults):
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        faults.append(f"{path.relative_to(ROOT)}: {error}")
        return None


def read_json(path, faults):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        faults.append(f"{path.relative_to(ROOT)}: {error}")
        return {}


if __name__ == "__main__":
    sys.exit(main())
