//! gRPC through Teal: Google's own client and server, with HTTP/2 on both sides.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::process::Process;
use crate::support::teal::Teal;
use crate::support::{free_address, pick, python, until};

#[test]
fn calls_of_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    let python = python::with("grpc", "grpcio==1.85.1");
    let script = folder.path().join("calls.py");
    std::fs::write(&script, CALLS).unwrap();
    let serve = |address: std::net::SocketAddr| {
        let mut server = Command::new(&python);
        server.arg(&script).args(["serve", &address.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
        let server = Process::start(&mut server);
        until("the gRPC server listens", Duration::from_secs(20), || std::net::TcpStream::connect(address).ok());
        server
    };
    let ask = |kind: &str, listen: std::net::SocketAddr| {
        let calls = pick("40", "4000");
        let output = Command::new(&python)
            .arg(&script)
            .args([kind, &listen.to_string(), calls])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
        println!("grpc, {kind}: {}", String::from_utf8_lossy(&output.stdout).trim());
    };
    let address = free_address();
    let pool = format!("{{ endpoints: [http://{address}], protocol: h2 }}");
    let teal = Teal::shop(folder.path(), &pool, &pool, "health: off", "");
    let server = serve(address);
    ask("calls", teal.listen);
    drop(server);
    ask("nobody", teal.listen);
    let _server = serve(address);
    ask("calls", teal.listen);
}

/// A server without generated code, messages being bytes; and a client that checks all it is told.
const CALLS: &str = r#"
import sys, threading, time
from concurrent import futures
import grpc

def one(request, context):
    context.send_initial_metadata((("x-initial", "1"),))
    context.set_trailing_metadata((("x-trailing", "2"), ("x-binary-bin", b"\x00\xff")))
    assert dict(context.invocation_metadata()).get("x-asked") in (None, "yes")
    return request[::-1]

def left(request, context):
    return str(context.time_remaining()).encode()

def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not 100 % ready: \u00e4")

def silent(request, context):
    time.sleep(5)
    return b""

def many(request, context):
    for number in range(int(request)):
        yield b"%d" % number

def sum_up(requests, context):
    return b"%d" % sum(len(request) for request in requests)

def chat(requests, context):
    for request in requests:
        yield b"you said " + request
    context.set_trailing_metadata((("x-over", "yes"),))

def serve(address):
    kinds = {
        "one": grpc.unary_unary_rpc_method_handler(one),
        "left": grpc.unary_unary_rpc_method_handler(left),
        "fail": grpc.unary_unary_rpc_method_handler(fail),
        "silent": grpc.unary_unary_rpc_method_handler(silent),
        "many": grpc.unary_stream_rpc_method_handler(many),
        "sum": grpc.stream_unary_rpc_method_handler(sum_up),
        "chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", kinds),))
    assert server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()

def open_channel(address):
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0)]
    return grpc.insecure_channel(address, options=options)

def status_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("no error")

def calls(address, count):
    with open_channel(address) as channel:
        unary = channel.unary_unary("/t.T/one")
        for number in range(count):
            reply, call = unary.with_call(b"abc%d" % number, timeout=20, metadata=(("x-asked", "yes"),))
            assert reply == (b"abc%d" % number)[::-1], reply
        initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
        assert initial.get("x-initial") == "1", initial
        assert (trailing.get("x-trailing"), trailing.get("x-binary-bin")) == ("2", b"\x00\xff"), trailing
        large = bytes(8 << 20)
        assert unary(large, timeout=30) == large
        assert unary(b"", timeout=20) == b""

        together = [unary.future(b"%d" % number, timeout=30) for number in range(200)]
        assert all(call.result() == (b"%d" % number)[::-1] for number, call in enumerate(together))

        remaining = float(channel.unary_unary("/t.T/left")(b"", timeout=7))
        assert 3 < remaining < 8, remaining
        code, details = status_of(lambda: channel.unary_unary("/t.T/silent")(b"", timeout=0.5))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED, (code, details)
        code, details = status_of(lambda: channel.unary_unary("/t.T/fail")(b"", timeout=20))
        assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "not 100 % ready: \u00e4"), (code, details)
        code, details = status_of(lambda: channel.unary_unary("/t.T/none")(b"", timeout=20))
        assert code == grpc.StatusCode.UNIMPLEMENTED, (code, details)

        numbers = list(channel.unary_stream("/t.T/many")(b"1000", timeout=30))
        assert numbers == [b"%d" % number for number in range(1000)], len(numbers)
        assert list(channel.unary_stream("/t.T/many")(b"0", timeout=20)) == []
        parts = (bytes(70000) for _ in range(50))
        assert channel.stream_unary("/t.T/sum")(parts, timeout=30) == b"3500000"

        # Each word waits for the answer to the one before.
        heard, lock = [], threading.Semaphore(0)
        def words():
            for number in range(20):
                yield b"%d" % number
                assert lock.acquire(timeout=20)
        answers = channel.stream_stream("/t.T/chat")(words(), timeout=30)
        for answer in answers:
            heard.append(answer)
            lock.release()
        assert heard == [b"you said %d" % number for number in range(20)], heard
        assert dict(answers.trailing_metadata()).get("x-over") == "yes"

        # A call that is broken off leaves the others alone.
        broken = channel.unary_stream("/t.T/many")(b"100000000", timeout=30)
        assert next(broken) == b"0"
        broken.cancel()
        assert unary(b"ab", timeout=20) == b"ba"
    print(f"{count} unary, 200 at once, 8 MiB, streams of 1000 down and 50 up, 20 words in turn; deadline, status, "
          "trailers, cancel")

def nobody(address, count):
    with open_channel(address) as channel:
        code, details = status_of(lambda: channel.unary_unary("/t.T/one")(b"x", timeout=20))
        assert code == grpc.StatusCode.UNAVAILABLE and "upstream" in details, (code, details)
        code, details = status_of(lambda: list(channel.unary_stream("/t.T/many")(b"5", timeout=20)))
        assert code == grpc.StatusCode.UNAVAILABLE and "upstream" in details, (code, details)
    print("UNAVAILABLE in Teal's words:", details)

if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    {"calls": calls, "nobody": nobody}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
"#;
