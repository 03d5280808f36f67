//! A balancer in front of several processes: passes bytes on, and new connections to where it is told.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::free_address;

/// A running balancer. Its listener lives as long as the test process.
pub struct Balancer {
    pub address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
}

impl Balancer {
    pub fn start(target: SocketAddr) -> Balancer {
        let address = free_address();
        let listener = TcpListener::bind(address).unwrap();
        let target = Arc::new(Mutex::new(target));
        let current = Arc::clone(&target);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let target = *current.lock().unwrap();
                std::thread::spawn(move || drop(join(near, target)));
            }
        });
        Balancer { address, target }
    }

    /// New connections go there from now on; those that are open stay where they are.
    pub fn turn_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

fn join(near: TcpStream, target: SocketAddr) -> io::Result<()> {
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (up_from, up_to) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || pass(up_from, up_to));
    pass(far, near);
    Ok(())
}

/// One way; its end is passed on as well.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
