//! A health answer as a Consul agent in dev mode writes it: indented by four spaces, about 2.6 kB for each instance.

use std::fmt::Write;

/// One instance, passing; `round` stands in the output of its check, which changes nothing of the node, and `life` is
/// its incarnation, which does.
pub fn entry(number: usize, life: usize, round: usize) -> String {
    let (a, b, c) = (number >> 16 & 255, number >> 8 & 255, number & 255);
    let zone = ["a", "b", "c"][number % 3];
    format!(
        r#"    {{
        "Node": {{
            "ID": "2c9f1d3e-77aa-4b52-9d0e-{number:012x}",
            "Node": "vm-{number:06}",
            "Address": "10.{a}.{b}.{c}",
            "Datacenter": "dc1",
            "TaggedAddresses": {{
                "lan": "10.{a}.{b}.{c}",
                "lan_ipv4": "10.{a}.{b}.{c}",
                "wan": "10.{a}.{b}.{c}",
                "wan_ipv4": "10.{a}.{b}.{c}"
            }},
            "Meta": {{
                "consul-network-segment": "",
                "consul-version": "1.22.0"
            }},
            "CreateIndex": {number},
            "ModifyIndex": {number}
        }},
        "Service": {{
            "ID": "orders-{number:06}",
            "Service": "orders",
            "Tags": [
                "order",
                "customer"
            ],
            "Address": "10.{a}.{b}.{c}",
            "TaggedAddresses": {{
                "lan_ipv4": {{
                    "Address": "10.{a}.{b}.{c}",
                    "Port": 8090
                }},
                "wan_ipv4": {{
                    "Address": "10.{a}.{b}.{c}",
                    "Port": 8090
                }}
            }},
            "Meta": {{
                "id": "orders-{number:06}",
                "incarnation": "{life}",
                "version": "2.14.3",
                "zone": "eu-central-1{zone}"
            }},
            "Port": 8090,
            "Weights": {{
                "Passing": 1,
                "Warning": 1
            }},
            "EnableTagOverride": false,
            "Proxy": {{
                "Mode": "",
                "MeshGateway": {{}},
                "Expose": {{}}
            }},
            "Connect": {{}},
            "PeerName": "",
            "CreateIndex": {number},
            "ModifyIndex": {number}
        }},
        "Checks": [
            {{
                "Node": "vm-{number:06}",
                "CheckID": "serfHealth",
                "Name": "Serf Health Status",
                "Status": "passing",
                "Notes": "",
                "Output": "Agent alive and reachable",
                "ServiceID": "",
                "ServiceName": "",
                "ServiceTags": [],
                "Type": "",
                "Interval": "",
                "Timeout": "",
                "ExposedPort": 0,
                "Definition": {{}},
                "CreateIndex": {number},
                "ModifyIndex": {number}
            }},
            {{
                "Node": "vm-{number:06}",
                "CheckID": "service:orders-{number:06}",
                "Name": "Service 'orders' check",
                "Status": "passing",
                "Notes": "",
                "Output": "HTTP GET http://10.{a}.{b}.{c}:8090/health: 200 OK Output: \"ok {round}\"\n",
                "ServiceID": "orders-{number:06}",
                "ServiceName": "orders",
                "ServiceTags": [
                    "order",
                    "customer"
                ],
                "Type": "ttl",
                "Interval": "",
                "Timeout": "",
                "ExposedPort": 0,
                "Definition": {{}},
                "CreateIndex": {number},
                "ModifyIndex": {number}
            }}
        ]
    }}"#
    )
}

/// The answer that lists so many instances; `changed` ones of them, spread evenly, are in that `life`.
pub fn answer(count: usize, changed: usize, life: usize) -> Vec<u8> {
    let every = count.checked_div(changed).unwrap_or(usize::MAX);
    let mut text = String::from("[\n");
    for number in 0..count {
        let lives = if number % every == every / 2 { life } else { 1 };
        let comma = if number + 1 < count { ",\n" } else { "\n" };
        _ = write!(text, "{}{comma}", entry(number, lives, 0));
    }
    text.push(']');
    text.into_bytes()
}
