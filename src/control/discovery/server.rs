//! A name server for tests: UDP on a port of its own, answers from a table that the test changes, questions counted.
//!
//! Invariant: what is not in the table does not exist (NXDOMAIN).

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Records by name, each with its TTL in seconds.
type Zone = HashMap<String, Vec<(u32, RData)>>;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

pub(super) fn a(ip: &str) -> RData {
    RData::A(A(ip.parse::<Ipv4Addr>().unwrap()))
}

pub(super) fn aaaa(ip: &str) -> RData {
    RData::AAAA(AAAA(ip.parse::<Ipv6Addr>().unwrap()))
}

pub(super) fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 1, port, Name::from_utf8(target).unwrap()))
}

impl Server {
    pub(super) async fn start() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (count, asked) = watch::channel(0);
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let address = socket.local_addr().unwrap();
        let task = tokio::spawn(serve(socket, Arc::clone(&zone), count));
        Server { address, zone, asked, task }
    }

    /// From now on `name` has these records.
    pub(super) fn set(&self, name: &str, records: &[(u32, RData)]) {
        self.zone.lock().unwrap().insert(name.to_owned(), records.to_vec());
    }

    /// From now on there is no such name.
    pub(super) fn remove(&self, name: &str) {
        self.zone.lock().unwrap().remove(name);
    }

    /// Questions so far.
    pub(super) fn asked(&self) -> u64 {
        *self.asked.borrow()
    }

    /// Returns once `more` questions came after those so far.
    pub(super) async fn asked_again(&self, more: u64) {
        let mut asked = self.asked.clone();
        let target = self.asked() + more;
        asked.wait_for(|count| *count >= target).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>, count: watch::Sender<u64>) {
    let mut buffer = [0; 1_500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let bytes = answer(&question, &zone.lock().unwrap()).to_vec().unwrap();
        socket.send_to(&bytes, from).await.unwrap();
        count.send_modify(|count| *count += 1);
    }
}

fn answer(question: &Message, zone: &Zone) -> Message {
    let query = question.queries[0].clone();
    let mut response = Message::response(question.metadata.id, question.metadata.op_code);
    match zone.get(&query.name().to_utf8()) {
        None => response.metadata.response_code = ResponseCode::NXDomain,
        Some(records) => {
            let fits = records.iter().filter(|(_, data)| data.record_type() == query.query_type());
            response.add_answers(fits.map(|(ttl, data)| Record::from_rdata(query.name().clone(), *ttl, data.clone())));
        }
    }
    response.add_query(query);
    response
}
