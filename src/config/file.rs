//! The file's top level: listeners, admin, state, process limits; and the list of services.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::edge::{self, Bind};
use super::environment::read_secret;
use super::listener::{Listen, listener};
use super::report::{Problem, Span};
use super::section::{Input, Section, Value};
use super::service::{Claims, service};
use super::settings::{AccessLog, Admin, Client, Resolver, Secret, Service, Settings, Shutdown, State};
use super::yaml::{Kind, Node};

pub(super) const FILE: &[&str] =
    &["version", "listen", "admin", "state", "workers", "access_log", "client", "resolver", "shutdown", "services"];
pub(super) const ADMIN: &[&str] = &["listen", "token"];
pub(super) const CLIENT: &[&str] = &[
    "head_timeout",
    "keep_alive",
    "max_connections",
    "max_connections_per_source",
    "max_in_flight",
    "max_lag",
    "unread",
    "min_upload_rate",
    "max_head",
    "max_headers",
    "trusted",
    "forwarded_by",
];
pub(super) const SHUTDOWN: &[&str] = &["delay", "grace", "pace", "handover"];

/// Worker threads: past this a machine gains nothing from one process.
const MAX_WORKERS: usize = 256;
/// Addresses to listen on.
const MAX_LISTEN: usize = 16;
/// Services in one file.
const MAX_SERVICES: usize = 1024;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Reads the whole tree. `None` means that problems were reported.
pub(super) fn settings(input: &Input<'_>, root: &Node) -> Option<Settings> {
    let whole = Value { input, node: root, name: "", at: Span::default() };
    if !whole.is_mapping() {
        let problem = whole.problem("wrong_type", "the file is not a mapping of keys to values");
        return whole.refuse(problem.help("it begins with `version: 1`"));
    }
    let file = whole.section(FILE)?;
    let version = file.required("version", "write `version: 1` at the top", version);
    let listen = file.or("listen", vec![(Listen::plain(DEFAULT_LISTEN), Span::default())], listen);
    let admin = file.or("admin", Some(admin_at(DEFAULT_ADMIN)), admin);
    refuse_shared_ports(&file, &listen, admin.as_ref());
    let state = match file.field("state") {
        Some(value) => state(value),
        None => default_state(input),
    };
    let help = "a service needs a name and pools: `services: { shop: { pools: { blue: http://127.0.0.1:3001 } } }`";
    let services = file.required("services", help, services);
    let settings = Settings {
        listen: listen.into_iter().map(|(listener, _)| listener).collect(),
        admin,
        state: state.unwrap_or(State::Ephemeral),
        workers: file.or("workers", available_workers(), workers),
        access_log: file.or("access_log", AccessLog::default(), access_log),
        client: file.or("client", Client::default(), client),
        resolver: file.or("resolver", Resolver::default(), edge::resolver),
        shutdown: file.or("shutdown", Shutdown::default(), shutdown),
        services: services.unwrap_or_default(),
    };
    version.map(|()| settings)
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

fn version(value: Value<'_>) -> Option<()> {
    match value.text("the number 1")?.as_str() {
        "1" => Some(()),
        _ => {
            let problem = value.problem("unsupported", "this version of the file's format is not known");
            value.refuse(problem.help("the only one so far is `version: 1`"))
        }
    }
}

/// An address to listen on; `:8080` is every IPv4 interface.
pub(super) fn socket(value: Value<'_>) -> Option<SocketAddr> {
    let expected = "an address such as `0.0.0.0:8080`";
    let text = value.text(expected)?;
    let text = text.trim();
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    whole.parse().ok().or_else(|| {
        let help = match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => "the port alone is written with a colon: `:8080`",
            false => "it is an IP address and a port; IPv6 in brackets: `[::]:8080`; every interface: `:8080`",
        };
        value.refuse(value.problem("bad_value", format!("`{}` needs {expected}", value.name)).help(help))
    })
}

fn listen(value: Value<'_>) -> Option<Vec<(Listen, Span)>> {
    let items = match value.is_mapping() {
        true => vec![value],
        false => value.one_or_more(MAX_LISTEN, "an address such as `0.0.0.0:8080`, or a list of them")?,
    };
    Some(items.into_iter().filter_map(|item| Some((listener(item)?, item.node.span))).collect())
}

/// Two listeners on one port would share it silently (`SO_REUSEPORT`), so the second is refused here.
fn refuse_shared_ports(file: &Section<'_>, listen: &[(Listen, Span)], admin: Option<&Admin>) {
    let admin_at = file.field("admin").map_or(Span::default(), |value| value.at);
    let all: Vec<_> = listen
        .iter()
        .map(|(listener, at)| (listener.address.clone(), *at))
        .chain(admin.map(|admin| (admin.listen.into(), admin_at)))
        .collect();
    let clash = |a: &Bind, b: &Bind| match (a, b) {
        (Bind::Tcp(a), Bind::Tcp(b)) => {
            let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() == b.port() && a.port() != 0 && a.is_ipv4() == b.is_ipv4() && covers
        }
        (Bind::Unix(a), Bind::Unix(b)) => a.path == b.path,
        _ => false,
    };
    for (index, (address, at)) in all.iter().enumerate() {
        if let Some((first, first_at)) = all[..index].iter().find(|(first, _)| clash(first, address)) {
            let at = if *at == Span::default() { *first_at } else { *at };
            let message = format!("{address} is taken by {first}, which is listened on as well");
            file.value().input.report(Problem::new("conflict", at, message).help("give one of them another place"));
        }
    }
}

fn admin_at(listen: SocketAddr) -> Admin {
    Admin { listen, token: None }
}

fn admin(value: Value<'_>) -> Option<Option<Admin>> {
    if value.is("off") {
        return Some(None);
    }
    if !value.is_mapping() && !matches!(value.node.kind, Kind::Null) {
        let listen = socket(value)?;
        return guarded(value, value.node.span, admin_at(listen)).map(Some);
    }
    let section = value.section(ADMIN)?;
    let listen = section.or("listen", DEFAULT_ADMIN, socket);
    let at = section.field("listen").map_or(value.at, |listen| listen.node.span);
    // A token that cannot be read is its own problem, and no reason to ask for one.
    match section.field("token") {
        Some(token) => Some(Some(Admin { listen, token: Some(secret(token)?) })),
        None => guarded(value, at, admin_at(listen)).map(Some),
    }
}

fn guarded(value: Value<'_>, at: Span, admin: Admin) -> Option<Admin> {
    if admin.listen.ip().is_loopback() {
        return Some(admin);
    }
    let message = format!("the admin API on {} would be open to the network without a token", admin.listen);
    let help = "add one, `admin: { listen: ..., token: \"file:admin.token\" }`, or listen on 127.0.0.1";
    value.refuse(Problem::new("exposed_admin", at, message).help(help))
}

/// A secret: the text itself, or `file:PATH` relative to the file's folder.
fn secret(value: Value<'_>) -> Option<Secret> {
    let text = value.text("a text, `${NAME}` or `file:PATH`")?;
    // Only the file may point to a file: a variable's value is the secret itself, whatever it begins with.
    let points = matches!(&value.node.kind, Kind::Scalar(raw) if raw.starts_with("file:"));
    let secret = match text.strip_prefix("file:").filter(|_| points) {
        Some(path) => match read_secret(&value.input.folder.join(path)) {
            Ok(secret) => secret,
            Err(message) => return value.refuse(value.problem("secret", message)),
        },
        None => text,
    };
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = value.problem("secret", format!("`{}` cannot be sent in a header", value.name));
        return value.refuse(problem.help("it may hold ASCII letters, digits and signs, but no spaces"));
    }
    Some(Secret::new(secret))
}

fn state(value: Value<'_>) -> Option<State> {
    match value.is("none") {
        true => Some(State::Ephemeral),
        false => value.path("a folder, or `none` for memory only").map(State::Folder),
    }
}

/// The folder that the service manager or the user's session provides.
fn default_state(input: &Input<'_>) -> Option<State> {
    let variable = |name: &str| (input.environment)(name).filter(|value| Path::new(value).is_absolute());
    // systemd separates several folders by colons; the first is ours.
    let systemd = variable("STATE_DIRECTORY").map(|list| PathBuf::from(list.split(':').next().unwrap_or_default()));
    let session = || variable("XDG_STATE_HOME").map(|folder| Path::new(&folder).join("teal"));
    let home = || variable("HOME").map(|folder| Path::new(&folder).join(".local/state/teal"));
    systemd.or_else(session).or_else(home).map(State::Folder).or_else(|| {
        let message = "no folder for state is set, and STATE_DIRECTORY, XDG_STATE_HOME and HOME tell none";
        let help = "write `state: /var/lib/teal`, or `state: none` to forget everything at the end";
        input.report(Problem::new("no_state_folder", Span::default(), message).help(help));
        None
    })
}

fn available_workers() -> NonZeroUsize {
    let limit = NonZeroUsize::new(MAX_WORKERS).unwrap_or(NonZeroUsize::MIN);
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(limit)
}

fn workers(value: Value<'_>) -> Option<NonZeroUsize> {
    match value.is("auto") {
        true => Some(available_workers()),
        false => value.count(1..=MAX_WORKERS).and_then(NonZeroUsize::new),
    }
}

fn access_log(value: Value<'_>) -> Option<AccessLog> {
    match () {
        () if value.is("off") => Some(AccessLog::Off),
        () if value.is("stdout") => Some(AccessLog::Stdout),
        () => value.path("`off`, `stdout` or a file").map(AccessLog::File),
    }
}

fn client(value: Value<'_>) -> Option<Client> {
    let section = value.section(CLIENT)?;
    let default = Client::default();
    Some(Client {
        head_timeout: section.or("head_timeout", default.head_timeout, |v| v.duration(SECOND / 10..=10 * MINUTE)),
        keep_alive: section.or("keep_alive", default.keep_alive, |v| v.duration(SECOND / 10..=HOUR)),
        max_connections: section.or("max_connections", default.max_connections, |v| most(v, "auto")),
        max_connections_per_source: section
            .or("max_connections_per_source", default.max_connections_per_source, |v| most(v, "none")),
        max_in_flight: section.or("max_in_flight", default.max_in_flight, |v| most(v, "none")),
        max_lag: section.or("max_lag", default.max_lag, max_lag),
        unread: section.or("unread", default.unread, |v| v.duration(SECOND / 10..=HOUR)),
        min_upload_rate: section.or("min_upload_rate", default.min_upload_rate, rate),
        // Less than 8 KiB would refuse ordinary browsers; the buffer is kept per connection.
        max_head: section.or("max_head", default.max_head, |v| v.size(8 * 1024..=1024 * 1024)),
        max_headers: section.or("max_headers", default.max_headers, |v| v.count(10..=1000)),
        trust: edge::trust(&section),
    })
}

/// Bytes a second. Faster than the limit is no slow link any more: whoever wants more wants a timeout.
fn rate(value: Value<'_>) -> Option<Option<NonZeroUsize>> {
    if value.is("none") { Some(None) } else { value.size(1..=1024 * 1024).map(NonZeroUsize::new) }
}

/// Shorter than the pause between two looks would be noise.
fn max_lag(value: Value<'_>) -> Option<Option<Duration>> {
    if value.is("none") { Some(None) } else { value.duration(SECOND / 100..=10 * SECOND).map(Some) }
}

/// A number, or the word for leaving it open.
pub(super) fn most(value: Value<'_>, left_open: &str) -> Option<Option<NonZeroUsize>> {
    if value.is(left_open) { Some(None) } else { value.count(1..=1_000_000).map(NonZeroUsize::new) }
}

fn shutdown(value: Value<'_>) -> Option<Shutdown> {
    let section = value.section(SHUTDOWN)?;
    let default = Shutdown::default();
    Some(Shutdown {
        delay: section.or("delay", default.delay, |v| v.duration(Duration::ZERO..=5 * MINUTE)),
        grace: section.or("grace", default.grace, |v| v.duration(Duration::ZERO..=HOUR)),
        pace: section.or("pace", default.pace, |v| most(v, "none")),
        handover: section.or("handover", default.handover, |v| v.duration(Duration::ZERO..=24 * HOUR)),
    })
}

fn services(value: Value<'_>) -> Option<Vec<Service>> {
    let members: Vec<_> = value.members("a mapping of services")?.collect();
    value.at_most(members.len(), MAX_SERVICES)?;
    if members.is_empty() {
        return value.wrong_type("at least one service");
    }
    let mut claims: Claims = HashMap::new();
    Some(members.into_iter().filter_map(|member| service(member, &mut claims)).collect())
}
