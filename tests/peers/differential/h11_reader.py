# Reads messages with h11. A line in is `role method message` (hexadecimal; role `server` reads requests, `client` answers to a
# request of that method); a line out is what was read, as JSON: all messages, and the error if there was one.
import json, sys
import h11

LIMIT = 1 << 20


def text(value):
    return bytes(value).decode("latin-1")


def requests(messages, data):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    connection.receive_data(data)
    connection.receive_data(b"")
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            fields = [[text(name), text(value)] for name, value in event.headers]
            message = {"method": text(event.method), "target": text(event.target), "fields": fields, "body": b"", "whole": False}
            messages.append(message)
        elif isinstance(event, h11.Data):
            message["body"] += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            message["whole"] = True
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
        elif event is h11.PAUSED:
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()
        else:
            return


def answers(messages, method, data):
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    while True:
        event = connection.next_event()
        if isinstance(event, (h11.Response, h11.InformationalResponse)):
            message = {"status": event.status_code, "body": b"", "whole": isinstance(event, h11.InformationalResponse)}
            messages.append(message)
        elif isinstance(event, h11.Data):
            message["body"] += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            message["whole"] = True
            messages[-1]["rest"] = len(connection.trailing_data[0])
        else:
            return


for line in sys.stdin:
    role, method, data = line.split()
    data = b"" if data == "-" else bytes.fromhex(data)
    error, messages = None, []
    try:
        if role == "server":
            requests(messages, data)
        else:
            answers(messages, method, data)
    except h11.ProtocolError as refused:
        error = str(refused)
    for message in messages:
        message["body"] = message["body"].hex()
    print(json.dumps({"messages": messages, "error": error}), flush=True)
