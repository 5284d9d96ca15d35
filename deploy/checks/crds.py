"""Checks objects of extensions against the schemas in their CustomResourceDefinitions, strictly: an
unknown field is an error. kubernetes-validate knows Kubernetes' own kinds alone.

usage: crds.py FOLDER_OF_CRDS... -- MANIFESTS...
"""

import pathlib
import sys

import jsonschema
import yaml

# Some definitions have a lone `=` among the allowed words, which PyYAML has no constructor for.
LOADER = yaml.CSafeLoader
LOADER.add_constructor("tag:yaml.org,2002:value", yaml.constructor.SafeConstructor.construct_yaml_str)


def strict(schema: object) -> object:
    """The same schema, with fields that it does not name forbidden, as `kubectl` warns of them."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    if "properties" in schema and "additionalProperties" not in schema:
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
    return schema


def schemas_in(folders: list[str]) -> dict[tuple[str, str], dict]:
    found = {}
    for folder in folders:
        for path in pathlib.Path(folder).glob("*.yaml"):
            for crd in yaml.load_all(path.read_text(), LOADER):
                if not crd or crd.get("kind") != "CustomResourceDefinition":
                    continue
                spec = crd["spec"]
                for version in spec["versions"]:
                    key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                    schema = version["schema"]["openAPIV3Schema"]
                    # What every object has is Kubernetes' and not described there.
                    schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    found[key] = strict(schema)
    return found


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    schemas = schemas_in(arguments[:split])
    groups = {api.split("/")[0] for api, _ in schemas}
    checked, problems = set(), 0
    for manifest in arguments[split + 1 :]:
        for document in yaml.load_all(pathlib.Path(manifest).read_text(), LOADER):
            key = (document["apiVersion"], document["kind"])
            name = f"{manifest}: {document['kind']}/{document['metadata']['name']}"
            if key not in schemas:
                # Kubernetes' own groups have no dot (apps) or end so; those are not ours to check.
                group = key[0].rpartition("/")[0]
                if group in groups or ("." in group and not group.endswith(".k8s.io")):
                    print(f"{name}: no schema for {key[0]}")
                    problems += 1
                continue
            checked.add(document["kind"])
            for error in jsonschema.Draft7Validator(schemas[key]).iter_errors(document):
                where = "/".join(map(str, error.absolute_path))
                print(f"{name}: {where}: {error.message}")
                problems += 1
    print(f"checked against their definitions: {', '.join(sorted(checked))}")
    return 1 if problems or not checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
