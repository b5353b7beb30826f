"""The whole stack of packaging/lambda on loopback, with real parts: `make cloud`.

The functions are the real binaries under the Lambda runtime emulator of cargo-lambda. DynamoDB is hb-dynamodb (dynoxide,
tools/dynamodb), SNS and SQS are moto's. What AWS puts in between stands in this file, and is read from the template itself:
the table, the filters of the stream, the environment, and the roles, by which every call of DynamoDB is judged.

Then it does what it is told on its standard input, one JSON object a line, with one line of answer for each:

    {"do": "queue"}                 the messages of a queue that is subscribed to the topic; takes them off
    {"do": "minute"}                both schedules, now
    {"do": "schedule", "on": false} no schedules any more
    {"do": "clock", "s": 1800000000} DynamoDB's clock, for the time to live only; removes what has passed
    {"do": "invoke", "function": "api", "event": {...}}
    {"do": "units"}                 units that DynamoDB consumed, by function
    {"do": "dead"}                  what was put aside
    {"do": "times"}                 milliseconds that the last 1,000 invocations of each function took, the emulator included
"""

import argparse
import base64
import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
ACCOUNT = "123456789012"
TABLE = "hb-local-cloud"
FUNCTIONS = ["ingest", "api", "sweeper", "notifier"]
# What the stream's event source does with a batch that failed.
RETRIES_MAX = 20
BATCH_MAX = 100


def fail(text):
    print(f"error: {text}", file=sys.stderr)
    sys.exit(1)


# The template ---------------------------------------------------------------------------------------------------------


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms, `!Ref x` as {"Ref": x}."""


def short_form(loader, suffix, node):
    kind = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: lambda n: loader.construct_sequence(n, True),
            yaml.MappingNode: lambda n: loader.construct_mapping(n, True)}[type(node)]
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": kind(node)}


Loader.add_multi_constructor("!", short_form)


class Template:
    """What of the template matters here, for a stack of one region with function URLs."""

    def __init__(self):
        with open(ROOT / "packaging/lambda/template.yaml") as file:
            self.resources = yaml.load(file, Loader)["Resources"]

    def table(self):
        properties = self.resources["Table"]["Properties"]
        return {name: properties[name] for name in ("AttributeDefinitions", "KeySchema")} | {
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": {"StreamEnabled": True, **properties["StreamSpecification"]},
        }, properties["TimeToLiveSpecification"]

    def filters(self):
        stream = self.resources["NotifierFunction"]["Properties"]["Events"]["Stream"]["Properties"]
        return [json.loads(one["Pattern"]) for one in stream["FilterCriteria"]["Filters"]]

    def environment(self, function):
        """The names of its variables."""
        properties = self.resources[f"{function.title()}Function"]["Properties"]
        return set(properties.get("Environment", {}).get("Variables", {}))

    def allowed(self, function):
        """Of DynamoDB: action -> prefixes of keys; None: all."""
        allowed = collections.defaultdict(set)
        [policy] = self.resources[f"{function.title()}Role"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                service, _, name = action.partition(":")
                if service != "dynamodb":
                    continue
                condition = statement.get("Condition")
                if condition is None:
                    allowed[name] = None
                elif allowed[name] is not None:
                    allowed[name] |= set(condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"])
        return allowed


def matches(pattern, value):
    """Whether an event fits a pattern of EventBridge: literals and {"prefix": …}, which is all that the template uses."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(name in value and matches(part, value[name]) for name, part in pattern.items())
    for one in pattern:
        if isinstance(one, dict):
            [(kind, operand)] = one.items()
            if kind != "prefix":
                fail(f"a filter of the template holds {kind!r}, which is not known here")
            if isinstance(value, str) and value.startswith(operand):
                return True
        elif one == value:
            return True
    return False


class Prompt(HTTPConnection):
    """Sends a body right after its head: else the kernel holds it back until the head is acknowledged, for 40 ms."""

    def connect(self):
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


# DynamoDB, behind the roles ---------------------------------------------------------------------------------------------


def keys_of(operation, body):
    """(action, key) of everything that a request of DynamoDB touches, as IAM counts it."""
    if operation in ("GetItem", "UpdateItem", "DeleteItem"):
        yield operation, body["Key"]["p"]["S"]
    elif operation == "PutItem":
        yield operation, body["Item"]["p"]["S"]
    elif operation == "Query":
        names = body.get("ExpressionAttributeNames", {})
        for name, value in re.findall(r"([#\w]+) = (:\w+)", body["KeyConditionExpression"]):
            if names.get(name, name) == "p":
                yield operation, body["ExpressionAttributeValues"][value]["S"]
    elif operation == "BatchGetItem":
        for table in body["RequestItems"].values():
            yield from ((operation, key["p"]["S"]) for key in table["Keys"])
    elif operation == "BatchWriteItem":
        for writes in body["RequestItems"].values():
            for write in writes:
                item = write["PutRequest"]["Item"] if "PutRequest" in write else write["DeleteRequest"]["Key"]
                yield operation, item["p"]["S"]
    elif operation in ("TransactWriteItems", "TransactGetItems"):
        for part in body["TransactItems"]:
            [(kind, inner)] = part.items()
            name = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "Get": "GetItem",
                    "ConditionCheck": "ConditionCheckItem"}[kind]
            yield name, (inner.get("Item") or inner.get("Key"))["p"]["S"]
    else:
        yield operation, ""


class Gate:
    """Lets a function do what its role allows, and counts what that costs."""

    def __init__(self, template, dynamodb):
        self.allowed = {function: template.allowed(function) for function in FUNCTIONS}
        self.upstream = dynamodb.removeprefix("http://")
        self.units = collections.defaultdict(lambda: collections.Counter())
        self.refused = []
        self.local = threading.local()

    def refusal(self, function, operation, body):
        if function not in self.allowed:
            return None
        for action, key in keys_of(operation, body):
            prefixes = self.allowed[function].get(action, set())
            if prefixes is not None and not any(key.startswith(prefix.removesuffix("*")) for prefix in prefixes):
                return f"{function} may not {action} {key[:2]}"
        return None

    def handler(gate):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                operation = self.headers.get("x-amz-target", "").rpartition(".")[2]
                credential = re.search(r"Credential=LOCAL([A-Z]+)/", self.headers.get("authorization", ""))
                function = credential.group(1).lower() if credential else ""
                if refusal := gate.refusal(function, operation, json.loads(body)):
                    gate.refused.append(refusal)
                    print(f"the role does not allow it: {refusal}", file=sys.stderr)
                    said = {"__type": "com.amazon.coral.service#AccessDeniedException", "message": refusal}
                    return self.answer(400, json.dumps(said).encode())
                status, answer = gate.forward(self.headers, body)
                gate.count(function, operation, answer)
                self.answer(status, answer)

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("content-type", "application/x-amz-json-1.0")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler

    def forward(self, headers, body):
        kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "connection")}
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = Prompt(self.upstream, timeout=30)
            try:
                connection.request("POST", "/", body, kept)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except OSError:
                self.local.connection = None
                if attempt == 2:
                    raise

    def count(self, function, operation, answer):
        consumed = json.loads(answer or b"{}").get("ConsumedCapacity") or []
        for one in consumed if isinstance(consumed, list) else [consumed]:
            self.units[function][operation] += one.get("CapacityUnits", 0)


# Lambda -----------------------------------------------------------------------------------------------------------------


class Emulator:
    """Invokes functions by cargo-lambda's emulator."""

    def __init__(self, port):
        self.port = port
        self.times = collections.defaultdict(lambda: collections.deque(maxlen=1000))

    def invoke(self, function, event, timeout=700):
        begun = time.perf_counter()
        answer = self.invoke_once(function, event, timeout)
        self.times[function].append(round((time.perf_counter() - begun) * 1000, 2))
        return answer

    def invoke_once(self, function, event, timeout):
        connection = Prompt("127.0.0.1", self.port, timeout=timeout)
        body = json.dumps(event)
        connection.request("POST", f"/2015-03-31/functions/{function}/invocations", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        read = answer.read()
        connection.close()
        parsed = json.loads(read or b"null")
        is_error = answer.status != 200 or answer.headers.get("x-amz-function-error")
        if is_error or (isinstance(parsed, dict) and "errorType" in parsed):
            raise RuntimeError(f"{function} failed: {read.decode()[:500]}")
        return parsed


def front_door(emulator, function):
    """A function URL: requests become events of payload format 2.0."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def handle_any(self):
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            path, _, query = self.path.partition("?")
            try:
                body, is_base64 = raw.decode(), False
            except UnicodeDecodeError:
                body, is_base64 = base64.b64encode(raw).decode(), True
            event = {
                "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
                "headers": {name.lower(): ", ".join(self.headers.get_all(name)) for name in self.headers},
                # AWS names the address by which the function was called; here it has a port.
                "requestContext": {"domainName": self.headers.get("host"), "stage": "$default",
                                   "http": {"method": self.command, "path": path, "sourceIp": "127.0.0.1"}},
                "isBase64Encoded": is_base64,
            }
            if raw:
                event["body"] = body
            try:
                answer = emulator.invoke(function, event)
            except (OSError, RuntimeError) as error:
                # As AWS does: the caller learns nothing but that.
                print(error, file=sys.stderr)
                answer = {"statusCode": 502, "headers": {"content-type": "application/json"},
                          "body": '{"Message":"Internal Server Error"}', "isBase64Encoded": False}
            out = base64.b64decode(answer["body"]) if answer.get("isBase64Encoded") else answer.get("body", "").encode()
            self.send_response(answer["statusCode"])
            for name, value in answer.get("headers", {}).items():
                if name.lower() not in ("content-length", "connection"):
                    self.send_header(name, value)
            if answer["statusCode"] != 204:
                self.send_header("content-length", str(len(out)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(out)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

    return Handler


def serve(handler, port=0):
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


# The stack --------------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, what, process):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None:
                fail(f"{what} ended before it listened")
            time.sleep(0.05)
    fail(f"{what} does not listen")


class Stack:
    def __init__(self, options):
        self.options = options
        self.template = Template()
        self.children = []
        self.is_scheduled = True
        self.is_stopping = False
        self.seen = 0
        self.dead = []
        self.pumping = threading.Lock()
        self.told = threading.Lock()
        self.log = open(options.log, "w") if options.log else subprocess.DEVNULL

    def spawn(self, command, **more):
        child = subprocess.Popen(command, **{"stdout": self.log, "stderr": self.log, "stdin": subprocess.DEVNULL} | more)
        self.children.append(child)
        return child

    def start(self):
        here = pathlib.Path(sys.executable).parent
        self.dynamodb = self.spawn([ROOT / ".cache/dynamodb/hb-dynamodb"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        dynamodb = self.dynamodb.stdout.readline().strip()
        moto_port, emulator_port = free_port(), free_port()
        moto = self.spawn([here / "moto_server", "-H", "127.0.0.1", "-p", str(moto_port)])
        lambdas = self.spawn(
            [ROOT / ".cache/lambda/build/bin/cargo-lambda", "lambda", "watch", "--only-lambda-apis", "-A", "127.0.0.1", "-P", str(emulator_port)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        runtime = self.runtime_of(lambdas)
        self.emulator = Emulator(emulator_port)
        self.gate = Gate(self.template, dynamodb)
        gate_port = serve(self.gate.handler())
        wait_for(moto_port, "moto (SNS and SQS)", moto)
        wait_for(emulator_port, "cargo-lambda (the Lambda runtime)", lambdas)

        secret = {"aws_access_key_id": "LOCALOPERATOR", "aws_secret_access_key": "local", "region_name": REGION}
        self.make_table(boto3.client("dynamodb", endpoint_url=dynamodb, **secret))
        self.sns_url = f"http://127.0.0.1:{moto_port}"
        sns = boto3.client("sns", endpoint_url=self.sns_url, **secret)
        self.sqs = boto3.client("sqs", endpoint_url=self.sns_url, **secret)
        self.topic = sns.create_topic(Name="hb-local-cloud")["TopicArn"]
        self.queue = self.sqs.create_queue(QueueName="hb-local-alerts")["QueueUrl"]
        sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:hb-local-alerts")

        beat_port = serve(front_door(self.emulator, "ingest"), self.options.beat_port)
        api_port = serve(front_door(self.emulator, "api"), self.options.api_port)
        self.beat_url, self.api_url = f"http://127.0.0.1:{beat_port}", f"http://127.0.0.1:{api_port}"
        values = {"HB_BEAT_URLS": self.beat_url, "HB_TOPIC_ARN": self.topic, "HB_PEER_URL": ""}
        for function in FUNCTIONS:
            self.start_function(function, values, runtime, dynamodb if self.options.no_roles else f"http://127.0.0.1:{gate_port}")
        key = self.emulator.invoke("api", {"hb": "create-admin-key", "name": "admin"})["secret"]
        threading.Thread(target=self.schedule, daemon=True).start()
        threading.Thread(target=self.pump, daemon=True).start()
        return {"api": self.api_url, "beat": self.beat_url, "key": key, "topic": self.topic, "sns": self.sns_url,
                "queue": self.queue, "dynamodb": dynamodb, "emulator": f"http://127.0.0.1:{emulator_port}",
                "pids": {child.args[0].name if isinstance(child.args[0], pathlib.Path) else child.args[0]: child.pid for child in self.children}}

    def runtime_of(self, lambdas):
        """Where functions get their events from: the emulator says it as it starts."""
        for line in lambdas.stdout:
            if found := re.search(r"runtime_addr=(127\.0\.0\.1:[0-9]+)", line):
                # Whoever does not read on blocks it some day.
                threading.Thread(target=lambda: [None for _ in lambdas.stdout], daemon=True).start()
                return f"http://{found.group(1)}/.rt"
        fail("cargo-lambda (the Lambda runtime) ended before it listened")

    def make_table(self, client):
        definition, time_to_live = self.template.table()
        client.create_table(**definition)
        client.update_time_to_live(TableName=TABLE, TimeToLiveSpecification=time_to_live)

    def start_function(self, function, values, runtime, dynamodb):
        environment = {
            "PATH": os.environ.get("PATH", ""), "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": f"LOCAL{function.upper()}",
            "AWS_SECRET_ACCESS_KEY": "local", "AWS_LAMBDA_RUNTIME_API": f"{runtime}/{function}",
            "AWS_LAMBDA_FUNCTION_NAME": function, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_LOG_GROUP_NAME": "local", "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_ENDPOINT_URL_DYNAMODB": dynamodb, "AWS_ENDPOINT_URL_SNS": self.sns_url,
            "HB_TABLE": TABLE, "HB_SHARDS": "4", "HB_LOG": self.options.level, "HB_ALLOW_NETWORKS": "127.0.0.0/8",
        } | {name: value for name, value in values.items() if name in self.template.environment(function)}
        binary = pathlib.Path(self.options.binaries) / function
        if not binary.exists():
            fail(f"there is no {binary}: run cargo build -p hb-lambda")
        self.spawn([binary], env=environment, stderr=self.log if self.options.log else None)

    def tell_dynamodb(self, line):
        with self.told:
            self.dynamodb.stdin.write(line + "\n")
            self.dynamodb.stdin.flush()
            answer = self.dynamodb.stdout.readline().strip()
        if answer.startswith("error"):
            raise RuntimeError(answer)
        return answer

    def minute(self):
        """Both schedules: what the one does not get done, the next minute will."""
        for function, event in (("sweeper", {"hb": "sweep"}), ("notifier", {"hb": "deliver"})):
            try:
                self.emulator.invoke(function, event)
            except (OSError, RuntimeError) as error:
                print(error, file=sys.stderr)

    def schedule(self):
        while True:
            time.sleep(self.options.minute)
            if self.is_scheduled:
                self.minute()

    def pump(self):
        while not self.is_stopping:
            time.sleep(0.2)
            try:
                self.pump_once()
            except (OSError, RuntimeError, ValueError) as error:
                print(f"the stream: {error}", file=sys.stderr)

    def pump_once(self):
        """What the event source of the stream does: filter, batch, retry from the first failure, give up at last."""
        with self.pumping:
            records = json.loads(self.tell_dynamodb(f"records {TABLE}"))
            fresh, self.seen = records[self.seen:], len(records)
            patterns = self.template.filters()
            wanted = [record for record in fresh if any(matches(pattern, record) for pattern in patterns)]
            while wanted:
                batch, wanted = wanted[:BATCH_MAX], wanted[BATCH_MAX:]
                self.deliver_batch(batch)

    def deliver_batch(self, batch):
        for attempt in range(RETRIES_MAX + 1):
            try:
                answer = self.emulator.invoke("notifier", {"Records": batch})
            except (OSError, RuntimeError) as error:
                print(error, file=sys.stderr)
                if len(batch) > 1:
                    middle = len(batch) // 2
                    self.deliver_batch(batch[:middle])
                    return self.deliver_batch(batch[middle:])
                time.sleep(min(0.2 * 2**attempt, 5))
                continue
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            if not failed:
                return None
            first = next(at for at, record in enumerate(batch) if record["dynamodb"]["SequenceNumber"] in failed)
            batch = batch[first:]
            time.sleep(min(0.2 * 2**attempt, 5))
        self.dead.append(batch)
        return None

    def obey(self, line):
        order = json.loads(line)
        match order.get("do"):
            case "queue":
                return self.messages()
            case "minute":
                self.minute()
                return {}
            case "schedule":
                self.is_scheduled = order["on"]
                return {}
            case "clock":
                self.tell_dynamodb(f"clock {order['s']}")
                return {"removed": int(self.tell_dynamodb("expire"))}
            case "invoke":
                return {"answer": self.emulator.invoke(order["function"], order["event"])}
            case "units":
                return {"units": self.gate.units, "refused": self.gate.refused}
            case "times":
                return {"times": {function: list(times) for function, times in self.emulator.times.items()}}
            case "dead":
                return {"dead": self.dead}
            case other:
                return {"error": f"{other!r} is nothing that can be done: see the top of cloud.py"}

    def messages(self):
        found = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return {"messages": found}

    def stop(self):
        self.is_stopping = True
        # What the pump is at has its parts until it is done, if that is soon.
        self.pumping.acquire(timeout=2)
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="say what there is as one line of JSON, and obey standard input")
    parser.add_argument("--minute", type=float, default=60, help="seconds between two runs of the schedules")
    parser.add_argument("--binaries", default=str(ROOT / "target/debug"), help="where the functions' binaries are")
    parser.add_argument("--beat-port", type=int, default=0)
    parser.add_argument("--api-port", type=int, default=0)
    parser.add_argument("--level", default="warn", help="HB_LOG of the functions")
    parser.add_argument("--log", help="a file for what the parts say")
    parser.add_argument("--no-roles", action="store_true", help="functions call DynamoDB directly: for measurements of time")
    options = parser.parse_args()
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN"):
        if os.environ.get(name):
            fail(f"{name} is set: this is a cloud on loopback, and must not have credentials of AWS at hand. Unset it.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    stack = Stack(options)
    try:
        made = stack.start()
        if options.json:
            print(json.dumps(made), flush=True)
            for line in sys.stdin:
                try:
                    answer = stack.obey(line)
                except (OSError, RuntimeError, KeyError, ValueError) as error:
                    answer = {"error": str(error)}
                print(json.dumps(answer), flush=True)
        else:
            print(WELCOME.format(**made), flush=True)
            while True:
                time.sleep(1)
                for message in stack.messages()["messages"]:
                    print(f"\nAN ALERT ARRIVED: {message['Message'].splitlines()[0]}", flush=True)
    except KeyboardInterrupt:
        print()
    finally:
        stack.stop()


WELCOME = """hb's cloud runs on loopback: four functions, DynamoDB, SNS, SQS.

In another terminal, with hb as an operator:

  export HB_SERVER={api} HB_API_KEY={key}
  hb channels add email --to you@example.org
  hb register --server {api} --name web-01 --interval 10s    # a host
  hb agent                                                   # it beats to {beat}
  hb status                                                  # stop the agent, and wait for the alert here

Schedules run as on AWS. End it with Ctrl-C; nothing is kept."""

if __name__ == "__main__":
    main()
