//! The networks of `run-local`, and what `localhost` in an address becomes on each.

use std::net::TcpListener;

use crate::engines::Checkout;

/// Connects to the address of stigmer-server.
const CONNECT: &str = "import os, socket\n\
    host, port = os.environ['STIGMER_BACKEND_ENDPOINT'].rsplit(':', 1)\n\
    socket.create_connection((host, int(port)), 10)";

/// The container reaches this machine from a network that the user created. On a network without a way to this
/// machine, addresses stay as they are.
pub fn of_all_kinds(checkout: &Checkout) {
    checkout.ok(&["build-image"]);
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let variable = format!("STIGMER_BACKEND_ENDPOINT={address}");
    let engine = checkout.engine;
    let start = |network: &str| {
        let line = ["run-local", "--no-wait", "--network", network];
        checkout.ok(&[&line[..], &["-e", &variable]].concat());
        let inside = checkout.inside("echo $STIGMER_BACKEND_ENDPOINT");
        inside.stdout.trim().to_owned()
    };

    let own = format!("{}-network", checkout.container);
    engine.run(&["network", "rm", &own]); // a failed run may have left it
    assert_eq!(engine.run(&["network", "create", &own]).code, 0);
    assert_ne!(start(&own), address);
    let reached = checkout.run(&["shell", "--", "python", "-c", CONNECT]);
    assert_eq!(reached.code, 0, "{reached:?}");
    checkout.ok(&["stop"]);
    assert_eq!(engine.run(&["network", "rm", &own]).code, 0);

    let other = format!("{}-foreign", checkout.container);
    engine.run(&["rm", "-f", &other]); // a failed run may have left it
    let reference = checkout.reference();
    let options = [
        "--detach",
        "--pull=never",
        "--network=none",
        "--entrypoint=sleep",
    ];
    let run = [
        &["run"],
        &options[..],
        &["--name", &other, &reference, "300"],
    ]
    .concat();
    assert_eq!(engine.run(&run).code, 0);
    assert_eq!(start(&format!("container:{other}")), address);
    assert_eq!(start("none"), address);
    checkout.ok(&["stop"]);
}
