"""The template as CloudFormation would see it: SAM expanded, parameters, conditions and functions resolved.

Needs aws-sam-translator (tools/lambda/setup.sh); nothing is asked over the network.
"""

import os
import re

os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
# Somebody's profile is none of this: a session that is given one looks it up.
for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
    os.environ.pop(name, None)

import boto3
from samtranslator.metrics.metrics import DummyMetricsPublisher, Metrics
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

PSEUDO = {
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "111122223333",
    "AWS::Partition": "aws",
    "AWS::StackName": "hb",
    "AWS::URLSuffix": "amazonaws.com",
}
# What CloudFormation answers for attributes that the template takes apart, or that have to be an ARN.
ATTRIBUTES = {
    "FunctionUrl": "https://{id}.lambda-url.eu-central-1.on.aws/",
    "ApiEndpoint": "https://{id}.execute-api.eu-central-1.amazonaws.com",
    "StreamArn": "arn:aws:dynamodb:eu-central-1:111122223333:table/{id}/stream/2026-01-01T00:00:00.000",
}
NOTHING = object()


class Stack:
    """What a stack with these parameters consists of."""

    def __init__(self, path, **parameters):
        source = yaml_parse(open(path, encoding="utf-8").read())
        self.parameters = {name: given.get("Default") for name, given in source["Parameters"].items()} | parameters
        unknown = set(parameters) - set(source["Parameters"])
        if unknown:
            raise KeyError(f"the template has no parameter {', '.join(sorted(unknown))}")
        for resource in source["Resources"].values():
            # `sam deploy` uploads the zip and puts its place in here.
            if "CodeUri" in resource.get("Properties", {}):
                resource["Properties"]["CodeUri"] = "s3://bucket/bootstrap.zip"
        session = boto3.Session(region_name=PSEUDO["AWS::Region"])
        metrics = Metrics("hb", DummyMetricsPublisher())
        self.template = Translator({}, Parser(), boto_session=session, metrics=metrics).translate(source, {})
        # To nobody; without it, the translator complains when it ends.
        metrics.publish()
        self.ids = {
            name for name, resource in self.template["Resources"].items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }
        #: References to what this stack does not have, and to which it would fail.
        self.dangling = set()
        self.resources = {name: self.resolve(self.template["Resources"][name]) for name in sorted(self.ids)}
        self.outputs = {
            name: self.resolve(output["Value"]) for name, output in self.template["Outputs"].items()
            if "Condition" not in output or self.holds(output["Condition"])
        }
        for name, resource in self.resources.items():
            depends = resource.get("DependsOn", [])
            self.dangling.update(set([depends] if isinstance(depends, str) else depends) - self.ids)

    def of_type(self, kind):
        return {name: r.get("Properties", {}) for name, r in self.resources.items() if r["Type"] == kind}

    def properties(self, name):
        return self.resources[name].get("Properties", {})

    def rules_broken(self):
        """The sentences of the rules that these parameters break."""
        rules = self.template.get("Rules", {}).values()
        return [a["AssertDescription"] for rule in rules for a in rule["Assertions"] if not self.resolve(a["Assert"])]

    def holds(self, condition):
        return self.resolve(self.template["Conditions"][condition])

    def name(self, name):
        if name == "AWS::NoValue":
            return NOTHING
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.parameters:
            return self.parameters[name]
        if name not in self.template["Resources"]:
            raise KeyError(name)
        if name not in self.ids:
            self.dangling.add(name)
        return name

    def attribute(self, name, attribute):
        self.name(name)
        return ATTRIBUTES.get(attribute, "{id}." + attribute).format(id=name)

    def sub(self, text, names):
        def value(match):
            name = match[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in names:
                return str(names[name])
            found = self.attribute(*name.split(".", 1)) if "." in name else self.name(name)
            return str(found)
        return re.sub(r"\$\{([^}]+)\}", value, text)

    def resolve(self, value):
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (kind, of), = value.items()
            match kind:
                case "Ref":
                    return self.name(of)
                case "Condition" if isinstance(of, str):
                    return self.holds(of)
                case "Fn::If":
                    return self.resolve(of[1] if self.holds(of[0]) else of[2])
                case "Fn::GetAtt":
                    return self.attribute(*(of.split(".", 1) if isinstance(of, str) else of))
                case "Fn::Sub":
                    text, names = (of, {}) if isinstance(of, str) else of
                    return self.sub(text, {key: self.resolve(item) for key, item in names.items()})
                case "Fn::Join":
                    return of[0].join(str(part) for part in self.resolve(of[1]))
                case "Fn::Split":
                    return self.resolve(of[1]).split(of[0])
                case "Fn::Select":
                    return self.resolve(of[1])[int(of[0])]
                case "Fn::Equals":
                    one, other = self.resolve(of)
                    return str(one) == str(other)
                case "Fn::Not":
                    return not self.resolve(of)[0]
                case "Fn::And":
                    return all(self.resolve(of))
                case "Fn::Or":
                    return any(self.resolve(of))
            if kind.startswith("Fn::"):
                raise NotImplementedError(kind)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NOTHING}
