#!/usr/bin/env python3
"""The template of the deployment: linted, expanded in every shape, and compared with what the code uses.

Run by tools/lambda/lint.sh, in the environment that tools/lambda/setup.sh made. Prints a line with the counts at the end.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import unittest

from expand import Stack

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE = pathlib.Path(os.environ.get("HB_TEMPLATE", ROOT / "packaging/lambda/template.yaml"))
STORE = ROOT / "crates/hb-store-dynamodb/src"
CODE = ROOT / "crates/hb-lambda"
VENVS = ROOT / ".cache/lambda"

FUNCTIONS = ("ingest", "api", "sweeper", "notifier")
MEMORY = {"ingest": 128, "api": 256, "notifier": 256}
# Which action on the table needs which: what the requests of hb-store-dynamodb are.
ACTIONS = {
    "GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem", "BatchWriteItem",
}
# Where AWS has nothing narrower than everything, or gives names that nobody knows before.
STARS = {
    ("dynamodb:ListStreams", "*"): "AWS defines no resource for this action; the mapping of the stream cannot do without it",
}
CERTIFICATE = "arn:aws:acm:eu-central-1:111122223333:certificate/0"
STREAM = "arn:aws:dynamodb:eu-central-1:111122223333:table/primary/stream/2026-01-01T00:00:00.000"
PEER_TOPIC = "arn:aws:sns:eu-west-1:111122223333:peer-Topic"
PEER = {"PeerApiUrl": "https://api.peer.example", "PeerBeatUrl": "https://beat.peer.example", "PeerTopicArn": PEER_TOPIC}
SHAPES = {
    "one region": {},
    "primary": {"ReplicaRegion": "eu-west-1", **PEER},
    "primary, before its peer is there": {"ReplicaRegion": "eu-west-1"},
    "secondary": {"PrimaryTable": "primary", "StreamArn": STREAM, **PEER},
    "http-api": {"FrontDoor": "http-api"},
    "http-api with a domain": {"FrontDoor": "http-api", "DomainName": "hb.example.org", "CertificateArn": CERTIFICATE},
    "secondary with a domain": {
        "FrontDoor": "http-api", "DomainName": "hb.example.org", "CertificateArn": CERTIFICATE,
        "PrimaryTable": "primary", "StreamArn": STREAM, **PEER,
    },
    "provisioned": {"Billing": "provisioned"},
    "provisioned in two regions": {"Billing": "provisioned", "ReplicaRegion": "eu-west-1", **PEER},
    "every option": {
        "ReservedConcurrency": 10, "ReservedConcurrencyApi": 5, "AlarmEmail": "ops@example.org", "StreamAlarm": "yes", "SmsAlarmUsd": 20,
        "PointInTimeRecovery": "false", "DeletionProtection": "false", "Shards": 16, "SweeperMemory": 512, "RetentionDays": 1, "LogLevel": "info",
    },
}
STACKS = {shape: Stack(TEMPLATE, **parameters) for shape, parameters in SHAPES.items()}


def rust(file, pattern):
    """What a pattern finds in a file of the store; an error when it finds nothing."""
    found = re.findall(pattern, (STORE / file).read_text(encoding="utf-8"), re.S)
    if not found:
        raise AssertionError(f"{file} has nothing like {pattern}: the test must learn how it looks now")
    return found


PREFIXES = dict(rust("keys.rs", r'pub const ([A-Z_]+): &str = "([A-Z]#)";'))
ALL = {PREFIXES[name] for name in re.findall(r"[A-Z_]+", rust("keys.rs", r"pub const ALL: \[&str; \d+\] = \[(.*?)\];")[0])}
PK, SK, TTL = (rust("table.rs", rf'pub const {name}: &str = "(\w+)";')[0] for name in ("PK", "SK", "TTL"))


def logical(function):
    return f"{function.capitalize()}Function"


def listed(value):
    return value if isinstance(value, list) else [value]


def statements(role):
    return [
        statement
        for policy in role.get("Policies", [])
        for statement in listed(policy["PolicyDocument"]["Statement"])
    ]


def role_of(stack, function):
    return stack.properties(stack.properties(logical(function))["Role"].removesuffix(".Arn"))


def matrix(stack):
    """What each function may do with the table: {function: {action: [prefix, …]}}; `*` is every prefix."""
    functions = {}
    for function in FUNCTIONS:
        allowed = functions.setdefault(function, {})
        for statement in statements(role_of(stack, function)):
            actions = [a.removeprefix("dynamodb:") for a in listed(statement["Action"]) if a.startswith("dynamodb:")]
            for action in (a for a in actions if "Stream" not in a and a not in ("GetRecords", "GetShardIterator")):
                condition = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys")
                prefixes = ["*"] if condition is None else [pattern.removesuffix("*") for pattern in condition]
                allowed[action] = sorted(set(allowed.get(action, [])) | set(prefixes))
    return functions


class Every(unittest.TestCase):
    """Runs a check on every shape of the stack."""

    def every(self, check):
        for shape, stack in STACKS.items():
            with self.subTest(shape):
                check(stack)


class Lint(unittest.TestCase):
    def run_tool(self, *command):
        # Credentials that are none, and a region that is one: the tools ask for both, and call nobody.
        away = {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_PROFILE"}
        quiet = {name: value for name, value in os.environ.items() if name not in away} | {
            "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true", "SAM_CLI_TELEMETRY": "0",
        }
        run = subprocess.run(command, capture_output=True, text=True, env=quiet, cwd=ROOT, check=False)
        self.assertEqual(run.returncode, 0, f"{pathlib.Path(command[0]).name} finds fault:\n{run.stdout}{run.stderr}")

    def test_cfn_lint_finds_no_fault(self):
        self.run_tool(str(VENVS / "cfn-lint/bin/cfn-lint"), str(TEMPLATE))

    def test_sam_validate_finds_no_fault(self):
        self.run_tool(str(VENVS / "sam/bin/sam"), "validate", "--lint", "--template", str(TEMPLATE))


class Shapes(Every):
    def test_every_shape_expands_and_refers_to_nothing_that_it_lacks(self):
        self.every(lambda stack: self.assertEqual(stack.dangling, set()))

    def test_every_shape_keeps_the_rules(self):
        self.every(lambda stack: self.assertEqual(stack.rules_broken(), []))

    def test_what_cannot_work_is_refused(self):
        for wrong, word in [
            ({"DomainName": "hb.example.org", "FrontDoor": "http-api"}, "CertificateArn"),
            ({"DomainName": "hb.example.org", "CertificateArn": CERTIFICATE}, "FrontDoor"),
            ({"PrimaryTable": "primary"}, "StreamArn"),
            ({"PrimaryTable": "primary", "StreamArn": STREAM, "ReplicaRegion": "eu-west-1"}, "ReplicaRegion"),
            ({"PeerApiUrl": "https://api.peer.example"}, "PeerBeatUrl"),
            ({"PeerApiUrl": "https://api.peer.example", "PeerBeatUrl": "https://beat.peer.example"}, "PeerTopicArn"),
        ]:
            broken = Stack(TEMPLATE, **wrong).rules_broken()
            self.assertTrue(any(word in sentence for sentence in broken), f"{wrong}: {broken}")

    def test_every_parameter_is_explained_used_and_in_a_group(self):
        template = STACKS["one region"].template
        interface = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [name for group in interface for name in group["Parameters"]]
        self.assertEqual(sorted(grouped), sorted(template["Parameters"]))
        source = TEMPLATE.read_text(encoding="utf-8")
        readme = (ROOT / "packaging/lambda/README.md").read_text(encoding="utf-8")
        for name in template["Parameters"]:
            self.assertRegex(source.split("\nRules:")[1], rf"!Ref {name}\b|\${{{name}}}", f"{name} changes nothing")
            self.assertIn(f"`{name}`", readme, f"the README does not explain {name}")
        for name in template["Outputs"]:
            self.assertIn(f"`{name}`", readme, f"the README does not explain the output {name}")

    def test_the_example_of_the_settings_fits_the_template(self):
        example = tomllib.loads((ROOT / "packaging/lambda/samconfig.example.toml").read_text(encoding="utf-8"))
        template = STACKS["one region"].template
        for name in ("default", "second"):
            settings = example[name]["deploy"]["parameters"]
            self.assertEqual(settings["capabilities"], "CAPABILITY_IAM")
            given = settings["parameter_overrides"]
            for parameter, value in given.items():
                self.assertRegex(value, template["Parameters"][parameter].get("AllowedPattern", ""), parameter)
            self.assertEqual(Stack(TEMPLATE, **given).rules_broken(), [])

    def test_nothing_has_a_name_that_two_stacks_could_share(self):
        names = ("FunctionName", "RoleName", "TableName", "TopicName", "QueueName", "AlarmName", "PolicyName", "Name")

        def check(stack):
            for name, resource in stack.resources.items():
                if resource["Type"] in ("AWS::Lambda::Permission", "AWS::Lambda::EventSourceMapping",
                                        "AWS::Lambda::EventInvokeConfig"):
                    continue
                for key in names:
                    fixed = resource.get("Properties", {}).get(key)
                    self.assertIn(fixed, (None, "hb"), f"{name} has a {key} of its own")
        self.every(check)

    def test_what_hosts_know_the_address_of_keeps_its_logical_id(self):
        kinds = {
            "Table": "AWS::DynamoDB::GlobalTable", "IngestFunction": "AWS::Lambda::Function",
            "ApiFunction": "AWS::Lambda::Function", "IngestUrl": "AWS::Lambda::Url", "ApiUrl": "AWS::Lambda::Url",
        }
        found = {name: r["Type"] for name, r in STACKS["one region"].resources.items() if name in kinds}
        self.assertEqual(found, kinds, "CloudFormation makes anew what is renamed: the table, and the addresses")


class Table(Every):
    def test_the_table_is_the_one_of_the_code(self):
        definition = rust("table.rs", r"Definition \{\s*(attributes:.*?)\n    \}")[0]
        self.assertEqual(re.findall(r'\((\w+), "(\w+)"\)', definition),
                         [("PK", "S"), ("SK", "S"), ("PK", "HASH"), ("SK", "RANGE")])
        self.assertIn("indexes: 0", definition)
        stream = re.search(r'stream: "(\w+)"', definition)[1]
        for shape in ("one region", "primary", "provisioned"):
            table = STACKS[shape].properties("Table")
            attributes = {a["AttributeName"]: a["AttributeType"] for a in table["AttributeDefinitions"]}
            self.assertEqual(attributes, {PK: "S", SK: "S"})
            keys = [(k["AttributeName"], k["KeyType"]) for k in table["KeySchema"]]
            self.assertEqual(keys, [(PK, "HASH"), (SK, "RANGE")])
            self.assertEqual(table["TimeToLiveSpecification"], {"AttributeName": TTL, "Enabled": True})
            self.assertEqual(table["StreamSpecification"], {"StreamViewType": stream})
            self.assertFalse({"GlobalSecondaryIndexes", "LocalSecondaryIndexes"} & set(table))

    def test_the_table_outlives_the_stack(self):
        table = STACKS["one region"].resources["Table"]
        self.assertEqual((table["DeletionPolicy"], table["UpdateReplacePolicy"]), ("Retain", "Retain"))

    def test_each_replica_is_protected_and_backed_up(self):
        for shape, regions in [("one region", ["eu-central-1"]), ("primary", ["eu-central-1", "eu-west-1"])]:
            replicas = STACKS[shape].properties("Table")["Replicas"]
            self.assertEqual([replica["Region"] for replica in replicas], regions)
            for replica in replicas:
                self.assertEqual(replica["DeletionProtectionEnabled"], "true")
                self.assertEqual(replica["PointInTimeRecoverySpecification"], {"PointInTimeRecoveryEnabled": "true"})
        for replica in STACKS["every option"].properties("Table")["Replicas"]:
            self.assertEqual(replica["DeletionProtectionEnabled"], "false")

    def test_only_provisioned_capacity_is_bought(self):
        for shape, stack in STACKS.items():
            if "Table" not in stack.resources:
                continue
            table = stack.properties("Table")
            provisioned = shape.startswith("provisioned")
            self.assertEqual(table["BillingMode"], "PROVISIONED" if provisioned else "PAY_PER_REQUEST")
            self.assertEqual("WriteProvisionedThroughputSettings" in table, provisioned)
            for replica in table["Replicas"]:
                read = {"ReadCapacityUnits": 25} if provisioned else None
                self.assertEqual(replica.get("ReadProvisionedThroughputSettings"), read)
        scaling = STACKS["provisioned"].properties("Table")["WriteProvisionedThroughputSettings"]
        scaling = scaling["WriteCapacityAutoScalingSettings"]
        self.assertEqual((scaling["MinCapacity"], scaling["MaxCapacity"]), (25, 25), "what is free")

    def test_the_second_region_makes_no_table(self):
        for shape in ("secondary", "secondary with a domain"):
            stack = STACKS[shape]
            self.assertEqual(stack.of_type("AWS::DynamoDB::GlobalTable"), {})
            self.assertEqual((stack.outputs["TableName"], stack.outputs["StreamArn"]), ("primary", STREAM))
            self.assertNotIn("ReplicaStreamCommand", stack.outputs)
        self.assertIn("eu-west-1", STACKS["primary"].outputs["ReplicaStreamCommand"])


class Functions(Every):
    def test_they_are_four_and_as_agreed(self):
        def check(stack):
            functions = stack.of_type("AWS::Lambda::Function")
            self.assertEqual(set(functions), {logical(function) for function in FUNCTIONS})
            for function in FUNCTIONS:
                made = functions[logical(function)]
                self.assertEqual((made["Runtime"], made["Architectures"]), ("provided.al2023", ["arm64"]))
                self.assertEqual(made["MemorySize"], MEMORY.get(function) or stack.parameters["SweeperMemory"])
                self.assertEqual(made["LoggingConfig"], {
                    "LogFormat": "JSON", "SystemLogLevel": "WARN", "LogGroup": f"{function.capitalize()}Logs",
                })
        self.every(check)
        source = TEMPLATE.read_text(encoding="utf-8")
        for function in FUNCTIONS:
            self.assertIn(f"CodeUri: ../../target/lambda/{function}/bootstrap.zip", source)

    def test_logs_end(self):
        def check(stack):
            groups = stack.of_type("AWS::Logs::LogGroup")
            self.assertEqual(set(groups), {f"{function.capitalize()}Logs" for function in FUNCTIONS})
            for group in groups.values():
                self.assertEqual(group["RetentionInDays"], stack.parameters["RetentionDays"])
        self.every(check)

    def test_a_failed_run_is_not_repeated_late(self):
        def check(stack):
            configured = {made["FunctionName"]: made for made in stack.of_type("AWS::Lambda::EventInvokeConfig").values()}
            self.assertEqual(set(configured), {logical(function) for function in FUNCTIONS})
            for made in configured.values():
                self.assertEqual((made["MaximumRetryAttempts"], made["MaximumEventAgeInSeconds"]), (0, 60))
        self.every(check)

    def test_both_schedules_run_each_minute_and_drop_what_is_late(self):
        def check(stack):
            schedules = {made["Target"]["Arn"]: made for made in stack.of_type("AWS::Scheduler::Schedule").values()}
            self.assertEqual(set(schedules), {"SweeperFunction.Arn", "NotifierFunction.Arn"})
            for made in schedules.values():
                self.assertEqual(made["ScheduleExpression"], "rate(1 minute)")
                self.assertEqual(made["FlexibleTimeWindow"], {"Mode": "OFF"})
                self.assertEqual(made["Target"]["RetryPolicy"],
                                 {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60})
            self.assertEqual(json.loads(schedules["NotifierFunction.Arn"]["Target"]["Input"]), {"hb": "deliver"})
            self.assertEqual(json.loads(schedules["SweeperFunction.Arn"]["Target"]["Input"]), {"hb": "sweep"})
        self.every(check)
        timeout = STACKS["one region"].properties("SweeperFunction")["Timeout"]
        self.assertLess(timeout, 60, "two sweeps at once store what they observe against each other")

    def test_concurrency_is_reserved_only_where_asked_for(self):
        for shape, ingest, api in [("one region", None, None), ("every option", 10, 5)]:
            stack = STACKS[shape]
            for function, reserved in [("ingest", ingest), ("api", api), ("sweeper", None), ("notifier", None)]:
                made = stack.properties(logical(function)).get("ReservedConcurrentExecutions")
                self.assertEqual(made, reserved, f"{shape}: {function}")

    def test_they_are_told_what_the_code_asks_for(self):
        common = {"HB_TABLE", "HB_SHARDS", "HB_LOG", "HB_PEER_REGION", "HB_PEER_URL", "HB_PEER_TOPIC_ARN"}
        more = {
            "ingest": set(), "api": {"HB_BEAT_URLS", "HB_TOPIC_ARN"}, "sweeper": {"HB_BEAT_URLS"},
            "notifier": {"HB_BEAT_URLS", "HB_TOPIC_ARN"},
        }

        def check(stack):
            second = "PrimaryTable" in stack.parameters and stack.parameters["PrimaryTable"]
            urls = [stack.outputs["BeatUrl"]] + [url for url in [stack.parameters["PeerBeatUrl"]] if url]
            for function in FUNCTIONS:
                told = stack.properties(logical(function))["Environment"]["Variables"]
                self.assertEqual(set(told), common | more[function])
                self.assertEqual(told["HB_TABLE"], "primary" if second else "Table")
                self.assertEqual(told["HB_SHARDS"], stack.parameters["Shards"])
                self.assertEqual(told.get("HB_BEAT_URLS", ",".join(urls)), ",".join(urls))
                topic = stack.parameters["PeerTopicArn"]
                peer = [told[name] for name in ("HB_PEER_REGION", "HB_PEER_URL", "HB_PEER_TOPIC_ARN")]
                self.assertEqual(peer, ["eu-west-1" if topic else "", stack.parameters["PeerApiUrl"], topic])
                self.assertEqual(told.get("HB_TOPIC_ARN", "Topic"), "Topic")
        self.every(check)
        if CODE.is_dir():
            source = "".join(file.read_text(encoding="utf-8") for file in CODE.rglob("src/**/*.rs"))
            known = set(re.findall(r'"(HB_[A-Z_]+)"', source))
            self.assertLessEqual(common.union(*more.values()), known, "hb-lambda does not read what it is told")


class FrontDoor(Every):
    def test_a_function_url_has_both_permissions(self):
        for shape, stack in STACKS.items():
            urls = stack.of_type("AWS::Lambda::Url")
            if stack.parameters["FrontDoor"] != "function-url":
                self.assertEqual(urls, {})
                continue
            permissions = list(stack.of_type("AWS::Lambda::Permission").values())
            self.assertEqual({url["TargetFunctionArn"] for url in urls.values()},
                             {"IngestFunction.Arn", "ApiFunction.Arn"})
            for url in urls.values():
                self.assertEqual(url["AuthType"], "NONE")
                function = url["TargetFunctionArn"].removesuffix(".Arn")
                for wanted in (
                    {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
                    {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True},
                ):
                    wanted |= {"FunctionName": function, "Principal": "*"}
                    self.assertIn(wanted, permissions, f"{shape}: calls of {function} are answered 403")

    def test_nobody_may_invoke_a_function_past_its_front_door(self):
        # The api makes an admin's key for who invokes it directly.
        def check(stack):
            for name, permission in stack.of_type("AWS::Lambda::Permission").items():
                narrow = (
                    permission.get("FunctionUrlAuthType") == "NONE" if permission["Action"] == "lambda:InvokeFunctionUrl"
                    else permission.get("InvokedViaFunctionUrl") is True if permission["Principal"] == "*"
                    else bool(permission.get("SourceArn"))
                )
                self.assertTrue(narrow, f"{name} lets anybody invoke {permission['FunctionName']}")
                self.assertIn(permission["Principal"], ("*", "apigateway.amazonaws.com"))
                self.assertIn(permission["FunctionName"], ("IngestFunction", "ApiFunction"))
        self.every(check)

    def test_an_http_api_brings_beats_to_ingest_and_the_rest_to_api(self):
        for shape, stack in STACKS.items():
            if stack.parameters["FrontDoor"] != "http-api":
                self.assertEqual(stack.of_type("AWS::ApiGatewayV2::Api"), {})
                continue
            routes = {
                route["RouteKey"]: stack.properties(route["Target"].removeprefix("integrations/"))
                for route in stack.of_type("AWS::ApiGatewayV2::Route").values()
            }
            self.assertEqual({key: made["IntegrationUri"] for key, made in routes.items()},
                             {"POST /v1/beat": "IngestFunction.Arn", "$default": "ApiFunction.Arn"})
            for made in routes.values():
                self.assertEqual((made["IntegrationType"], made["PayloadFormatVersion"]), ("AWS_PROXY", "2.0"))
            allowed = {
                permission["FunctionName"]: permission["SourceArn"].split(":", 5)[5]
                for permission in stack.of_type("AWS::Lambda::Permission").values()
            }
            self.assertEqual(allowed, {"IngestFunction": "HttpApi/*/POST/v1/beat", "ApiFunction": "HttpApi/*/$default"})
            stage = stack.properties("HttpApiStage")
            self.assertEqual(stage["StageName"], "$default", "the name of a stage would be in the path, which is signed")
            self.assertEqual(stage["DefaultRouteSettings"]["ThrottlingRateLimit"], 500)
            domain = stack.parameters["DomainName"]
            self.assertEqual(stack.properties("HttpApi")["DisableExecuteApiEndpoint"], bool(domain), shape)
            self.assertEqual("Domain" in stack.resources, bool(domain))

    def test_outputs_are_urls_as_hb_takes_them(self):
        def check(stack):
            for name in ("ApiUrl", "BeatUrl"):
                self.assertRegex(stack.outputs[name], r"^https://[^/]+$", "a base URL, without a slash at the end")
            if stack.parameters["DomainName"]:
                self.assertEqual(stack.outputs["ApiUrl"], "https://hb.example.org")
        self.every(check)
        self.assertNotEqual(STACKS["one region"].outputs["ApiUrl"], STACKS["one region"].outputs["BeatUrl"])
        self.assertEqual(STACKS["http-api"].outputs["ApiUrl"], STACKS["http-api"].outputs["BeatUrl"])

    def test_the_first_key_comes_from_a_call_and_no_secret_is_in_the_template(self):
        command = STACKS["one region"].outputs["AdminKeyCommand"]
        payload = re.search(r"--payload '(.*?)'", command)[1]
        self.assertEqual(json.loads(payload), {"hb": "create-admin-key", "name": "admin"})
        self.assertIn("--function-name ApiFunction ", command)
        source = TEMPLATE.read_text(encoding="utf-8")
        self.assertNotRegex(source, r"NoEcho|hb[a-z]?_[A-Za-z0-9]{8,}|(?i:password|secret):|-----BEGIN")


class Stream(Every):
    def test_only_the_notifier_reads_it_and_no_record_can_block_it(self):
        def check(stack):
            (mapping,) = stack.of_type("AWS::Lambda::EventSourceMapping").values()
            self.assertEqual(mapping["FunctionName"], "NotifierFunction")
            self.assertEqual(mapping["EventSourceArn"], stack.outputs["StreamArn"])
            self.assertEqual(
                {key: mapping[key] for key in (
                    "BatchSize", "BisectBatchOnFunctionError", "MaximumRetryAttempts", "MaximumRecordAgeInSeconds",
                    "FunctionResponseTypes", "StartingPosition", "MetricsConfig", "DestinationConfig",
                )},
                {
                    "BatchSize": 100, "BisectBatchOnFunctionError": True, "MaximumRetryAttempts": 20,
                    "MaximumRecordAgeInSeconds": 21600, "FunctionResponseTypes": ["ReportBatchItemFailures"],
                    "StartingPosition": "TRIM_HORIZON", "MetricsConfig": {"Metrics": ["EventCount"]},
                    "DestinationConfig": {"OnFailure": {"Destination": "DeadLetters.Arn"}},
                },
            )
            self.assertLessEqual(mapping["MaximumBatchingWindowInSeconds"], 1)
        self.every(check)

    def patterns(self, shape):
        (mapping,) = STACKS[shape].of_type("AWS::Lambda::EventSourceMapping").values()
        return [json.loads(made["Pattern"]) for made in mapping["FilterCriteria"]["Filters"]]

    def test_the_filters_let_through_events_to_tell_and_removals_by_the_time_to_live(self):
        untold = PREFIXES["UNTOLD"] + "all"
        self.assertIn('format!("{prefix}all")', (STORE / "keys.rs").read_text(encoding="utf-8"))
        patterns = self.patterns("one region")
        owner = rust("regions.rs", r'const OWNER: &str = "(\w+)";')[0]
        here = {owner: {"S": ["eu-central-1"]}}
        self.assertEqual(patterns, [
            {"eventName": ["INSERT"], "dynamodb": {"Keys": {PK: {"S": [untold]}}, "NewImage": here}},
            {
                "eventName": ["REMOVE"],
                "userIdentity": {"type": ["Service"], "principalId": ["dynamodb.amazonaws.com"]},
                "dynamodb": {"Keys": {PK: {"S": [{"prefix": PREFIXES["LIVE"]}]}}},
            },
        ])
        ttl = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
        for name, pk, who, passes in [
            ("INSERT", untold, None, True),
            ("MODIFY", untold, None, False),
            ("REMOVE", untold, None, False),
            ("REMOVE", PREFIXES["LIVE"] + "07", ttl, True),
            ("REMOVE", PREFIXES["LIVE"] + "07", None, False),
            ("REMOVE", PREFIXES["TOKEN"] + "all", ttl, False),
            ("MODIFY", PREFIXES["LIVE"] + "07", None, False),
            ("INSERT", PREFIXES["LIVE"] + "07", None, False),
        ]:
            record = {"eventName": name, "dynamodb": {
                "Keys": {PK: {"S": pk}, SK: {"S": "x"}}, "NewImage": {owner: {"S": "eu-central-1"}},
            }}
            record |= {"userIdentity": who} if who else {}
            self.assertEqual(any(fits(pattern, record) for pattern in patterns), passes, f"{name} of {pk} by {who}")
        elsewhere = {"eventName": "INSERT", "dynamodb": {
            "Keys": {PK: {"S": untold}}, "NewImage": {owner: {"S": "eu-west-1"}},
        }}
        self.assertFalse(any(fits(pattern, elsewhere) for pattern in patterns), "the other region tells it")

    def test_with_a_second_region_decisions_that_met_are_looked_at(self):
        met = [
            {"eventName": ["MODIFY"], "dynamodb": {"Keys": {PK: {"S": [{"prefix": PREFIXES[name]}]}}}}
            for name in ("HOST", "EVENT")
        ]
        for shape in ("primary", "secondary"):
            self.assertEqual(self.patterns(shape)[2:], met)
        for shape in ("one region", "primary, before its peer is there"):
            self.assertEqual(self.patterns(shape)[2:], [])


def fits(pattern, record):
    """EventBridge's patterns, as far as the template uses them."""
    for key, wanted in pattern.items():
        if key not in record:
            return False
        if isinstance(wanted, dict):
            if not fits(wanted, record[key]):
                return False
        elif not any(
            record[key].startswith(one["prefix"]) if isinstance(one, dict) else record[key] == one for one in wanted
        ):
            return False
    return True


class Roles(Every):
    def test_each_function_has_its_own(self):
        def check(stack):
            roles = [stack.properties(logical(function))["Role"].removesuffix(".Arn") for function in FUNCTIONS]
            self.assertEqual(len(set(roles)), len(FUNCTIONS))
            self.assertEqual(set(stack.of_type("AWS::IAM::Role")), set(roles) | {"SchedulerRole"})
            for name, role in stack.of_type("AWS::IAM::Role").items():
                self.assertNotIn("ManagedPolicyArns", role, name)
                (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
                service = "scheduler" if name == "SchedulerRole" else "lambda"
                self.assertEqual(trust["Principal"], {"Service": f"{service}.amazonaws.com"})
            self.assertFalse(stack.of_type("AWS::IAM::ManagedPolicy") or stack.of_type("AWS::IAM::Policy"))
        self.every(check)

    def test_nothing_is_allowed_everywhere_and_no_action_has_a_star(self):
        def check(stack):
            for name, role in stack.of_type("AWS::IAM::Role").items():
                for statement in statements(role):
                    self.assertEqual(statement["Effect"], "Allow")
                    self.assertFalse({"NotAction", "NotResource"} & set(statement))
                    for action in listed(statement["Action"]):
                        self.assertNotIn("*", action, name)
                        for resource in listed(statement["Resource"]):
                            starred = "*" in resource and (action, resource) not in STARS
                            self.assertFalse(starred, f"{name} may {action} on {resource}")
        self.every(check)

    def test_nobody_scans_or_changes_the_table_itself(self):
        def check(stack):
            for function, allowed in matrix(stack).items():
                self.assertLessEqual(set(allowed), ACTIONS, f"{function} may do more than the store asks for")
        self.every(check)
        source = "".join(file.read_text(encoding="utf-8") for file in STORE.rglob("*.rs"))
        self.assertNotIn(".scan()", source)

    def test_the_table_is_the_only_one_and_only_its_own_keys_are_given(self):
        def check(stack):
            table = f"arn:aws:dynamodb:eu-central-1:111122223333:table/{stack.outputs['TableName']}"
            for function in FUNCTIONS:
                for statement in statements(role_of(stack, function)):
                    actions = {a.removeprefix("dynamodb:") for a in listed(statement["Action"])} & ACTIONS
                    if not actions:
                        continue
                    self.assertEqual(statement["Resource"], table)
                    if function == "api":
                        continue
                    self.assertEqual(set(statement["Condition"]), {"ForAllValues:StringLike"})
                    patterns = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
                    self.assertLessEqual({pattern.removesuffix("*") for pattern in patterns}, ALL,
                                         f"{function}: no such prefix in keys.rs")
                    self.assertTrue(all(pattern.endswith("#*") for pattern in patterns))
        self.every(check)

    def test_who_needs_no_secret_cannot_read_it(self):
        secrets = {PREFIXES[name] for name in ("API_KEY", "TOKEN", "REDEEMED")}
        for function, allowed in matrix(STACKS["one region"]).items():
            given = {prefix for prefixes in allowed.values() for prefix in prefixes}
            if function != "api":
                self.assertFalse(given & (secrets | {"*"}), f"{function} may touch keys of operators or tokens")
            if function in ("ingest", "sweeper"):
                self.assertNotIn(PREFIXES["CHANNEL"], given, f"{function} may read the secrets of webhooks")

    def test_only_subscriptions_are_made_in_the_other_region(self):
        def check(stack):
            for function in FUNCTIONS:
                given = [s for s in statements(role_of(stack, function)) if s.get("Sid") == "PeerTopic"]
                topic = stack.parameters["PeerTopicArn"]
                self.assertEqual([s["Resource"] for s in given], [topic] if topic and function == "api" else [])
                for statement in given:
                    self.assertNotIn("sns:Publish", statement["Action"], "who stands in publishes to its own topic")
        self.every(check)

    def test_other_services_are_given_as_far_as_needed(self):
        topic = {"sns:Publish"}
        wanted = {
            "ingest": set(),
            "api": topic | {
                "sns:Subscribe", "sns:Unsubscribe", "sns:ListSubscriptionsByTopic",
            },
            "sweeper": set(),
            "notifier": topic | {
                "sns:ListSubscriptionsByTopic", "sqs:SendMessage", "dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords",
                "dynamodb:ListStreams",
            },
        }
        logs = {"logs:CreateLogStream", "logs:PutLogEvents"}

        def check(stack):
            for function in FUNCTIONS:
                given = {}
                for statement in statements(role_of(stack, function)):
                    for action in listed(statement["Action"]):
                        if action.removeprefix("dynamodb:") not in ACTIONS and statement.get("Sid") != "PeerTopic":
                            given[action] = statement["Resource"]
                self.assertEqual(set(given), wanted[function] | logs, function)
                resources = {
                    "logs": f"{function.capitalize()}Logs.Arn", "sns": "Topic", "sqs": "DeadLetters.Arn",
                    "dynamodb": stack.outputs["StreamArn"],
                }
                for action, resource in given.items():
                    if action != "dynamodb:ListStreams":
                        self.assertEqual(resource, resources[action.split(":")[0]], f"{function}: {action}")
            (invoke,) = statements(stack.properties("SchedulerRole"))
            self.assertEqual((invoke["Action"], sorted(invoke["Resource"])),
                             ("lambda:InvokeFunction", ["NotifierFunction.Arn", "SweeperFunction.Arn"]))
        self.every(check)


SIGNS_OF_LIFE = {"Invocations", "PolledEventCount"}


class Alarms(Every):
    def test_all_that_can_go_wrong_unseen_is_watched(self):
        def check(stack):
            alarms = stack.of_type("AWS::CloudWatch::Alarm")
            watched = {(alarm["Namespace"], alarm["MetricName"], *[d["Value"] for d in alarm.get("Dimensions", [])])
                       for alarm in alarms.values()}
            wanted = {
                ("AWS/Lambda", "Invocations", "SweeperFunction"), ("AWS/Lambda", "Invocations", "NotifierFunction"),
                ("AWS/Lambda", "IteratorAge", "NotifierFunction"), ("AWS/Lambda", "Throttles", "IngestFunction"),
                ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "DeadLetters.QueueName"),
                ("AWS/DynamoDB", "WriteThrottleEvents", stack.outputs["TableName"]),
            } | {("AWS/Lambda", "Errors", logical(function)) for function in FUNCTIONS}
            if stack.parameters["FrontDoor"] == "http-api":
                wanted.add(("AWS/ApiGateway", "4xx", "HttpApi"))
            if stack.parameters["StreamAlarm"] == "yes":
                wanted.add(("AWS/Lambda", "PolledEventCount", "NotifierFunctionStream"))
            if stack.parameters["SmsAlarmUsd"]:
                wanted.add(("AWS/SNS", "SMSMonthToDateSpentUSD"))
            self.assertEqual(watched, wanted)
            for name, alarm in alarms.items():
                self.assertEqual(alarm["AlarmActions"], ["AlarmTopic"], name)
                self.assertTrue(alarm["AlarmDescription"])
                # What has to be there is missed; what must not be there is not.
                missing = "breaching" if alarm["MetricName"] in SIGNS_OF_LIFE else "notBreaching"
                self.assertEqual(alarm["TreatMissingData"], missing, name)
            below = [alarm for alarm in alarms.values() if alarm["MetricName"] in SIGNS_OF_LIFE]
            self.assertTrue(all((a["ComparisonOperator"], a["Threshold"]) == ("LessThanThreshold", 1) for a in below))
        self.every(check)

    def test_they_reach_who_asked_for_them(self):
        self.assertEqual(STACKS["one region"].of_type("AWS::SNS::Subscription"), {})
        (subscription,) = STACKS["every option"].of_type("AWS::SNS::Subscription").values()
        self.assertEqual(subscription, {"TopicArn": "AlarmTopic", "Protocol": "email", "Endpoint": "ops@example.org"})

    def test_what_is_given_up_is_kept_and_travels_by_tls_alone(self):
        queue = STACKS["one region"].properties("DeadLetters")
        self.assertEqual((queue["MessageRetentionPeriod"], queue["SqsManagedSseEnabled"]), (14 * 24 * 3600, True))
        (statement,) = STACKS["one region"].properties("DeadLettersPolicy")["PolicyDocument"]["Statement"]
        self.assertEqual((statement["Effect"], statement["Condition"]), ("Deny", {"Bool": {"aws:SecureTransport": "false"}}))


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=1).run(suite)
    broken = {str(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors}
    print(f"lambda: {result.testsRun - len(broken)} passed, {len(broken)} failed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
