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
    {"do": "renew", "function": "ingest"} a new environment takes the place of the function's
    {"do": "dead"}                  what was put aside
    {"do": "sns", "on": false}      SNS answers 503
    {"do": "times"}                 milliseconds that the last 1,000 invocations of each function took, the emulator included; "gate":
                                  what the gate before DynamoDB took of that for each of its last 1,000 requests

With `--regions 2` there are two of all of that, each over a table of its own, and replication between the tables (replicas.py). An
order is about the first region, unless it says `"region": 1`; and there are more of them:

    {"do": "region", "region": 0, "on": false} the region is lost: it answers nothing, and nothing leaves it
    {"do": "replication", "on": false}         nothing is replicated any more
    {"do": "link", "on": false}                the functions of one region cannot call those of the other
"""

import argparse
import base64
import collections
import glob
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
import urllib.parse
import urllib.request
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import yaml

from replicas import Replication

ROOT = pathlib.Path(__file__).resolve().parents[2]
REGIONS = ["eu-central-1", "eu-west-1"]
ACCOUNT = "123456789012"
TABLE = "hb-local-cloud"
FUNCTIONS = ["ingest", "api", "sweeper", "notifier"]
# By any of these variables the AWS SDKs find credentials.
CREDENTIALS = (ROOT / "tools/cloud/credentials").read_text().split()
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
    """What of the template matters here, for a stack with function URLs, in a region that has a peer or none."""

    def __init__(self, region, has_peer):
        with open(ROOT / "packaging/lambda/template.yaml") as file:
            whole = yaml.load(file, Loader)
        self.resources = whole["Resources"]
        self.common = set(whole["Globals"]["Function"]["Environment"]["Variables"])
        self.region, self.has_peer = region, has_peer

    def chosen(self, items):
        """The items of a list, without those that depend on a peer where there is none."""
        for item in items:
            if "Fn::If" not in item:
                yield item
            elif item["Fn::If"][0] != "HasPeer":
                fail(f"a list of the template depends on {item['Fn::If'][0]}, which is not known here")
            elif self.has_peer:
                yield item["Fn::If"][1]

    def table(self):
        properties = self.resources["Table"]["Properties"]
        return {name: properties[name] for name in ("AttributeDefinitions", "KeySchema")} | {
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": {"StreamEnabled": True, **properties["StreamSpecification"]},
        }, properties["TimeToLiveSpecification"]

    def filters(self):
        stream = self.resources["NotifierFunction"]["Properties"]["Events"]["Stream"]["Properties"]
        patterns = [one["Pattern"] for one in self.chosen(stream["FilterCriteria"]["Filters"])]
        texts = [one["Fn::Sub"].replace("${AWS::Region}", self.region) if isinstance(one, dict) else one for one in patterns]
        return [json.loads(text) for text in texts]

    def environment(self, function):
        """The names of its variables."""
        properties = self.resources[f"{function.title()}Function"]["Properties"]
        return self.common | set(properties.get("Environment", {}).get("Variables", {}))

    def allowed(self, function):
        """Of DynamoDB: action -> prefixes of keys; None: all."""
        allowed = collections.defaultdict(set)
        [policy] = self.resources[f"{function.title()}Role"]["Properties"]["Policies"]
        for statement in self.chosen(policy["PolicyDocument"]["Statement"]):
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

    def topics(self, function):
        """Of SNS: the actions that it is given, each with whether that is on the topic of the other region."""
        [policy] = self.resources[f"{function.title()}Role"]["Properties"]["Policies"]
        for statement in self.chosen(policy["PolicyDocument"]["Statement"]):
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                service, _, name = action.partition(":")
                if service == "sns":
                    yield name, statement["Resource"] != {"Ref": "Topic"}


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
    """Sends head and body as one: else the kernel holds the body back until the head is acknowledged, for 40 ms. The emulator
    hands a request on piece by piece as it gets it, and would wait as long."""

    def request(self, *args, **kwargs):
        if self.sock is None:
            self.connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        super().request(*args, **kwargs)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


class Handler(BaseHTTPRequestHandler):
    """Answers at once, and says nothing of it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    content_type = "application/x-amz-json-1.0"

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def function(self):
        """Who signed: each function has a key with its own name."""
        credential = re.search(r"Credential=LOCAL([A-Z]+)/", self.headers.get("authorization", ""))
        return credential.group(1).lower() if credential else ""

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", self.content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


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
        self.own = collections.defaultdict(lambda: collections.deque(maxlen=1000))
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
        class Judged(Handler):
            def do_POST(self):
                begun = time.perf_counter()
                body = self.body()
                operation = self.headers.get("x-amz-target", "").rpartition(".")[2]
                function = self.function()
                if refusal := gate.refusal(function, operation, json.loads(body)):
                    gate.refused.append(refusal)
                    print(f"the role does not allow it: {refusal}", file=sys.stderr)
                    said = {"__type": "com.amazon.coral.service#AccessDeniedException", "message": refusal}
                    return self.answer(400, json.dumps(said).encode())
                asked = time.perf_counter()
                status, answer = gate.forward(self.headers, body)
                answered = time.perf_counter()
                gate.count(function, operation, answer)
                self.answer(status, answer)
                gate.own[function].append(round((time.perf_counter() - begun - (answered - asked)) * 1000, 2))

        return Judged

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


# SNS, behind the roles --------------------------------------------------------------------------------------------------


class Post:
    """Lets a function do with topics what its role allows, while SNS works."""

    def __init__(self, region, sns):
        self.allowed = {function: set(region.template.topics(function)) for function in FUNCTIONS}
        self.region, self.refused = region, region.gate.refused
        self.upstream = sns.removeprefix("http://")
        self.works = True

    def refusal(self, function, order):
        [action], [topic] = order["Action"], order.get("TopicArn") or order.get("SubscriptionArn") or [""]
        is_own = topic == self.region.topic or topic.startswith(f"{self.region.topic}:")
        if (action, not is_own) not in self.allowed.get(function, set()):
            return f"{function} may not {action} on {topic}"
        return None

    def handler(post):
        class Judged(Handler):
            content_type = "text/xml"

            def do_POST(self):
                body = self.body()
                if not post.works:
                    return self.answer(503, error("ServiceUnavailable", "SNS is told not to work"))
                if refusal := post.refusal(self.function(), urllib.parse.parse_qs(body.decode())):
                    post.refused.append(refusal)
                    print(f"the role does not allow it: {refusal}", file=sys.stderr)
                    return self.answer(403, error("AuthorizationError", refusal))
                kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
                connection = Prompt(post.upstream, timeout=30)
                connection.request("POST", self.path, body, kept)
                answer = connection.getresponse()
                self.answer(answer.status, answer.read())
                connection.close()

        def error(code, message):
            return f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>".encode()

        return Judged


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


def front_door(emulator, function, is_open):
    """A function URL: requests become events of payload format 2.0. While it is not open, nobody answers."""

    class Door(Handler):
        def handle_any(self):
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            if not is_open():
                self.close_connection = True
                return
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

    return Door


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


def runtime_of(lambdas):
    """Where functions get their events from: the emulator says it as it starts."""
    for line in lambdas.stdout:
        if found := re.search(r"runtime_addr=(127\.0\.0\.1:[0-9]+)", line):
            # Whoever does not read on blocks it some day.
            threading.Thread(target=lambda: [None for _ in lambdas.stdout], daemon=True).start()
            return f"http://{found.group(1)}/.rt"
    fail("cargo-lambda (the Lambda runtime) ended before it listened")


class Region:
    """One region: a table with its stream, a topic with a queue, and four functions."""

    def __init__(self, stack, place):
        self.stack, self.place, self.name = stack, place, REGIONS[place]
        self.template = Template(self.name, stack.options.regions == 2)
        self.is_alive = True
        # Filled by whoever reads the stream, emptied by the pump.
        self.backlog = collections.deque()
        self.dead = []
        self.functions = {}
        self.told = threading.Lock()
        self.pumping = threading.Lock()

    def start_dynamodb(self):
        self.dynamodb = self.stack.spawn([ROOT / ".cache/dynamodb/hb-dynamodb"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.dynamodb_url = self.dynamodb.stdout.readline().strip()
        self.gate = Gate(self.template, self.dynamodb_url)
        self.gate_url = f"http://127.0.0.1:{serve(self.gate.handler())}"

    def start_emulator(self):
        """It knows functions by the names of our binaries, so each region has its own."""
        port = free_port()
        lambdas = self.stack.spawn(
            [ROOT / ".cache/lambda/build/bin/cargo-lambda", "lambda", "watch", "--only-lambda-apis", "-A", "127.0.0.1", "-P", str(port)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.runtime = runtime_of(lambdas)
        wait_for(port, "cargo-lambda (the Lambda runtime)", lambdas)
        self.emulator = Emulator(port)

    def make(self, sns_url):
        """What the template makes, but for the functions."""
        self.sns_url = sns_url
        secret = {"aws_access_key_id": "LOCALOPERATOR", "aws_secret_access_key": "local", "region_name": self.name}
        self.make_table(boto3.client("dynamodb", endpoint_url=self.dynamodb_url, **secret))
        sns = boto3.client("sns", endpoint_url=sns_url, **secret)
        self.sqs = boto3.client("sqs", endpoint_url=sns_url, **secret)
        self.topic = sns.create_topic(Name="hb-local-cloud")["TopicArn"]
        self.post = Post(self, sns_url)
        self.post_url = f"http://127.0.0.1:{serve(self.post.handler())}"
        self.queue = self.sqs.create_queue(QueueName="hb-local-alerts")["QueueUrl"]
        sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{self.name}:{ACCOUNT}:hb-local-alerts")
        options = self.stack.options
        # Whoever asked for a port of the first region gets the next one for the second.
        port = lambda asked: asked + self.place if asked else 0
        is_alive = lambda: self.is_alive
        self.beat_url = self.door("ingest", port(options.beat_port), is_alive)
        self.api_url = self.door("api", port(options.api_port), is_alive)
        # What the other region calls.
        self.peer_url = self.door("api", 0, lambda: self.is_alive and self.stack.is_linked)

    def door(self, function, port, is_open):
        return f"http://127.0.0.1:{serve(front_door(self.emulator, function, is_open), port)}"

    def made(self):
        return {"region": self.name, "api": self.api_url, "beat": self.beat_url, "topic": self.topic, "sns": self.sns_url,
                "queue": self.queue, "dynamodb": self.dynamodb_url}

    def make_table(self, client):
        definition, time_to_live = self.template.table()
        client.create_table(**definition)
        client.update_time_to_live(TableName=TABLE, TimeToLiveSpecification=time_to_live)

    def start_functions(self, peer):
        values = {"HB_BEAT_URLS": self.beat_url, "HB_TOPIC_ARN": self.topic}
        if peer:
            values["HB_BEAT_URLS"] += f",{peer.beat_url}"
            values |= {"HB_PEER_REGION": peer.name, "HB_PEER_URL": peer.peer_url, "HB_PEER_TOPIC_ARN": peer.topic}
        self.values = values
        for function in FUNCTIONS:
            self.start_function(function)

    def renew(self, function):
        child = self.functions[function]
        child.terminate()
        child.wait()
        self.start_function(function)

    def start_function(self, function):
        options = self.stack.options
        environment = {
            "PATH": os.environ.get("PATH", ""), "AWS_REGION": self.name, "AWS_ACCESS_KEY_ID": f"LOCAL{function.upper()}",
            "AWS_SECRET_ACCESS_KEY": "local", "AWS_LAMBDA_RUNTIME_API": f"{self.runtime}/{function}",
            "AWS_LAMBDA_FUNCTION_NAME": function, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_LOG_GROUP_NAME": "local", "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb_url if options.no_roles else self.gate_url,
            "AWS_ENDPOINT_URL_SNS": self.post_url,
            "HB_TABLE": TABLE, "HB_SHARDS": "4", "HB_LOG": options.level, "HB_ALLOW_NETWORKS": "127.0.0.0/8",
        } | {name: value for name, value in self.values.items() if name in self.template.environment(function)}
        binary = pathlib.Path(options.binaries) / function
        if not binary.exists():
            fail(f"there is no {binary}: run cargo build -p hb-lambda")
        environment |= self.stack.hurry()
        log = self.stack.log
        self.functions[function] = self.stack.spawn([binary], env=environment, stderr=log if options.log else None)

    def invoke(self, function, event):
        return self.emulator.invoke(function, event)

    def tell_dynamodb(self, line):
        with self.told:
            self.dynamodb.stdin.write(line + "\n")
            self.dynamodb.stdin.flush()
            answer = self.dynamodb.stdout.readline().strip()
        if answer.startswith("error"):
            raise RuntimeError(answer)
        return answer

    def fresh(self):
        """What is new in the stream; the notifier is given it when the pump comes by."""
        records = json.loads(self.tell_dynamodb(f"fresh {TABLE}"))
        patterns = self.template.filters()
        self.backlog.extend(record for record in records if any(matches(pattern, record) for pattern in patterns))
        return records

    def write(self, changes):
        """As replication does: whole items, whatever is there."""
        self.tell_dynamodb(f"write {TABLE} {json.dumps(changes)}")

    def minute(self):
        """Both schedules: what the one does not get done, the next minute will."""
        for function, event in (("sweeper", {"hb": "sweep"}), ("notifier", {"hb": "deliver"})):
            if not self.is_alive:
                return
            try:
                self.invoke(function, event)
            except (OSError, RuntimeError) as error:
                print(error, file=sys.stderr)

    def pump_once(self):
        """What the event source of the stream does: batch, retry from the first failure, give up at last."""
        with self.pumping:
            while self.backlog and self.is_alive:
                self.deliver_batch([self.backlog.popleft() for _ in range(min(BATCH_MAX, len(self.backlog)))])

    def deliver_batch(self, batch):
        for attempt in range(RETRIES_MAX + 1):
            try:
                answer = self.invoke("notifier", {"Records": batch})
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

    def messages(self):
        found = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found


class Stack:
    def __init__(self, options):
        self.options = options
        self.begun = time.monotonic()
        self.children = []
        self.is_scheduled = True
        self.is_stopping = False
        self.is_linked = True
        self.log = open(options.log, "w") if options.log else subprocess.DEVNULL
        self.regions = [Region(self, place) for place in range(options.regions)]
        self.replication = Replication(self.regions, options.lag) if options.regions == 2 else None

    def hurry(self):
        """Has a function's clock run faster than ours. Every one of them is as far ahead, whenever it was started."""
        speed = self.options.speed
        if speed == 1:
            return {}
        libraries = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if not libraries:
            fail("--speed needs faketime: run tools/setup.sh")
        ahead = (time.monotonic() - self.begun) * (speed - 1)
        return {"LD_PRELOAD": libraries[0], "FAKETIME": f"+{ahead:.3f}s x{speed}", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1"}

    def spawn(self, command, **more):
        child = subprocess.Popen(command, **{"stdout": self.log, "stderr": self.log, "stdin": subprocess.DEVNULL} | more)
        self.children.append(child)
        return child

    def start(self):
        here = pathlib.Path(sys.executable).parent
        for region in self.regions:
            region.start_dynamodb()
            region.start_emulator()
        moto_port = free_port()
        moto = self.spawn([here / "moto_server", "-H", "127.0.0.1", "-p", str(moto_port)])
        wait_for(moto_port, "moto (SNS and SQS)", moto)
        for region in self.regions:
            region.make(f"http://127.0.0.1:{moto_port}")
        # One after the other, as two stacks are deployed: the first has made the secrets when the second begins.
        key = None
        for region in self.regions:
            peers = [other for other in self.regions if other is not region]
            region.start_functions(peers[0] if peers else None)
            if key is None:
                key = region.invoke("api", {"hb": "create-admin-key", "name": "admin"})["secret"]
            if self.replication:
                self.replication.copy_all(region)
        for loop in (self.schedule, self.pump):
            for region in self.regions:
                threading.Thread(target=loop, args=[region], daemon=True).start()
        threading.Thread(target=self.collect, daemon=True).start()
        return self.regions[0].made() | {
            "key": key, "emulator": f"http://127.0.0.1:{self.regions[0].emulator.port}", "regions": [region.made() for region in self.regions],
            "pids": {child.args[0].name if isinstance(child.args[0], pathlib.Path) else child.args[0]: child.pid for child in self.children}}

    def schedule(self, region):
        # Two regions' minutes do not begin together.
        time.sleep(self.options.minute * (1 + region.place / 2))
        while True:
            if self.is_scheduled:
                region.minute()
            time.sleep(self.options.minute)

    def every(self, seconds, what):
        while not self.is_stopping:
            time.sleep(seconds)
            try:
                what()
            except (OSError, RuntimeError, ValueError) as error:
                print(f"the stream: {error}", file=sys.stderr)

    def pump(self, region):
        self.every(0.1, region.pump_once)

    def collect(self):
        if self.replication:
            self.every(0.1, self.replication.step)
        else:
            self.every(0.2, self.regions[0].fresh)

    def obey(self, line):
        order = json.loads(line)
        region = self.regions[order.get("region", 0)]
        match order.get("do"):
            case "queue":
                return {"messages": region.messages()}
            case "minute":
                region.minute()
                return {}
            case "schedule":
                self.is_scheduled = order["on"]
                return {}
            case "clock":
                region.tell_dynamodb(f"clock {order['s']}")
                return {"removed": int(region.tell_dynamodb("expire"))}
            case "invoke":
                return {"answer": region.invoke(order["function"], order["event"])}
            case "renew":
                region.renew(order["function"])
                return {}
            case "units":
                return {"units": region.gate.units, "refused": region.gate.refused}
            case "times":
                lists = lambda times: {function: list(some) for function, some in times.items()}
                return {"times": lists(region.emulator.times), "gate": lists(region.gate.own)}
            case "dead":
                return {"dead": region.dead}
            case "sns":
                region.post.works = order["on"]
                return {}
            case "region":
                region.is_alive = order["on"]
                return {}
            case "link":
                self.is_linked = order["on"]
                return {}
            case "replication":
                self.replication.is_on = order["on"]
                return {}
            case other:
                return {"error": f"{other!r} is nothing that can be done: see the top of cloud.py"}

    def stop(self):
        self.is_stopping = True
        # What the pumps are at has its parts until it is done, if that is soon.
        for region in self.regions:
            region.pumping.acquire(timeout=2)
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()


def heed(stack):
    """Loses regions and brings them back, as somebody types."""
    for line in sys.stdin:
        match line.split():
            case ["lose" | "back" as word, "1" | "2" as number]:
                region = stack.regions[int(number) - 1]
                region.is_alive = word == "back"
                print(f"{region.name} {'is back' if region.is_alive else 'is lost'}", flush=True)
            case [_, *_]:
                print("lose 1, lose 2, back 1 or back 2", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="say what there is as one line of JSON, and obey standard input")
    parser.add_argument("--regions", type=int, choices=[1, 2], default=1, help="two: a second region, with a replica of the table")
    parser.add_argument("--lag", type=float, default=0.5, help="seconds that replication takes, about")
    parser.add_argument("--speed", type=int, default=1, help="the clocks of the functions run so many times as fast as ours")
    parser.add_argument("--minute", type=float, default=60, help="seconds between two runs of the schedules")
    parser.add_argument("--binaries", default=str(ROOT / "target/debug"), help="where the functions' binaries are")
    parser.add_argument("--beat-port", type=int, default=0)
    parser.add_argument("--api-port", type=int, default=0)
    parser.add_argument("--level", default="warn", help="HB_LOG of the functions")
    parser.add_argument("--log", help="a file for what the parts say")
    parser.add_argument("--no-roles", action="store_true", help="functions call DynamoDB directly: for measurements of time")
    options = parser.parse_args()
    for name in CREDENTIALS:
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
            print(WELCOME.format(bin=ROOT / "target/debug", **made), flush=True)
            if options.regions == 2:
                print(SECOND.format(**made["regions"][1]), flush=True)
                threading.Thread(target=heed, args=[stack], daemon=True).start()
            while True:
                time.sleep(1)
                for region in stack.regions:
                    for message in region.messages():
                        where = f" ({region.name})" if options.regions == 2 else ""
                        print(f"\nAN ALERT ARRIVED{where}: {message['Message'].splitlines()[0]}", flush=True)
    except KeyboardInterrupt:
        print()
    finally:
        stack.stop()


WELCOME = """hb's cloud runs on loopback: four functions, DynamoDB, SNS, SQS.

In another terminal, with hb as an operator, and then as a host whose key and journal are in a directory of their own:

  export PATH={bin}:$PATH HB_STATE_DIR=$(mktemp -d)
  export HB_SERVER={api} HB_API_KEY={key}
  hb channels add email --to you@example.org
  hb register --server {api} --name web-01 --interval 10s    # a host
  hb agent                                                   # it beats to {beat}
  hb status                                                  # stop the agent, and wait for the alert here

Schedules run as on AWS. End it with Ctrl-C; nothing is kept."""

SECOND = """
The second region, {region}: its api is {api}, and hosts beat to {beat}
when they cannot reach the first. Type `lose 1` and Enter to lose the first one, `back 1` when it is to come back (or 2)."""

if __name__ == "__main__":
    main()
