//! Which addresses overlap: at which of them the kernel refuses a second socket, and which sockets get what
//! would arrive at another one.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses of one IP version at which a socket gets packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<T> {
    Nothing,
    Any,
    /// With the scope of a link-local address.
    One(T, u32),
}

impl<T: Copy + PartialEq> Part<T> {
    fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Part::Nothing, _) | (_, Part::Nothing) => false,
            (Part::Any, _) | (_, Part::Any) => true,
            (Part::One(one, scope), Part::One(other, others)) => {
                one == other && (scope == others || scope == 0 || others == 0)
            }
        }
    }

    /// Does a socket with `self` get all that one with `other` would get?
    fn covers(self, other: Self) -> bool {
        matches!((self, other), (_, Part::Nothing) | (Part::Any, _)) || self == other
    }
}

/// All addresses at which a socket gets packets, on one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    port: u16,
    v4: Part<Ipv4Addr>,
    v6: Part<Ipv6Addr>,
}

impl Reach {
    /// `only_v6`: a socket at an IPv6 address leaves IPv4 to others.
    pub(crate) fn of(address: SocketAddr, only_v6: bool) -> Reach {
        let v4_part = |ip: Ipv4Addr| match ip.is_unspecified() {
            true => Part::Any,
            false => Part::One(ip, 0),
        };
        let (v4, v6) = match address {
            SocketAddr::V4(address) => (v4_part(*address.ip()), Part::Nothing),
            SocketAddr::V6(address) => match address.ip().to_ipv4_mapped() {
                Some(ip) => (v4_part(ip), Part::Nothing),
                None if !address.ip().is_unspecified() => {
                    (Part::Nothing, Part::One(*address.ip(), address.scope_id()))
                }
                None if only_v6 => (Part::Nothing, Part::Any),
                None => (Part::Any, Part::Any),
            },
        };
        Reach { port: address.port(), v4, v6 }
    }

    /// Is there an address at which both would get packets? Port 0 meets nothing: the system chooses a free
    /// one.
    pub(crate) fn meets(self, other: Reach) -> bool {
        self.port == other.port
            && self.port != 0
            && (self.v4.meets(other.v4) || self.v6.meets(other.v6))
    }

    /// Is there, for each address of `self`, one of `others` that gets what arrives there?
    pub(crate) fn is_covered_by(self, others: &[Reach]) -> bool {
        let mut others = others.iter().filter(|other| other.port == self.port);
        others.clone().any(|other| other.v4.covers(self.v4))
            && others.any(|other| other.v6.covers(self.v6))
    }
}

#[cfg(test)]
mod tests {
    use super::Reach;

    /// As text; `only` in front of one that leaves IPv4 to others.
    fn reach(text: &str) -> Reach {
        let (only_v6, address) =
            text.strip_prefix("only ").map_or((false, text), |rest| (true, rest));
        Reach::of(address.parse().expect("an address"), only_v6)
    }

    const ALL: [&str; 9] = [
        "127.0.0.1:80",
        "10.0.0.1:80",
        "0.0.0.0:80",
        "[::1]:80",
        "[fe80::1%2]:80",
        "[fe80::1%3]:80",
        "[::ffff:127.0.0.1]:80",
        "[::]:80",
        "only [::]:80",
    ];

    /// Tried on the kernel: each pair that is listed cannot be bound by two sockets without SO_REUSEPORT.
    #[test]
    fn addresses_that_overlap() {
        let meeting = [
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
            ("127.0.0.1:80", "[::]:80"),
            ("10.0.0.1:80", "0.0.0.0:80"),
            ("10.0.0.1:80", "[::]:80"),
            ("0.0.0.0:80", "[::ffff:127.0.0.1]:80"),
            ("0.0.0.0:80", "[::]:80"),
            ("[::1]:80", "[::]:80"),
            ("[::1]:80", "only [::]:80"),
            ("[fe80::1%2]:80", "[::]:80"),
            ("[fe80::1%2]:80", "only [::]:80"),
            ("[fe80::1%3]:80", "[::]:80"),
            ("[fe80::1%3]:80", "only [::]:80"),
            ("[::ffff:127.0.0.1]:80", "[::]:80"),
            ("[::]:80", "only [::]:80"),
        ];
        for one in ALL {
            for other in ALL {
                let expected = one == other
                    || meeting.contains(&(one, other))
                    || meeting.contains(&(other, one));
                assert_eq!(reach(one).meets(reach(other)), expected, "{one} and {other}");
            }
        }
        assert!(!reach("127.0.0.1:80").meets(reach("0.0.0.0:81")));
        // Asked for without a scope, as a socket may be that is bound to a device (SO_BINDTODEVICE).
        assert!(reach("[fe80::1]:80").meets(reach("[fe80::1%2]:80")));
        assert!(reach("[fe80::1%2]:80").meets(reach("[fe80::1]:80")));
        assert!(!reach("127.0.0.1:0").meets(reach("127.0.0.1:0")));
    }

    #[test]
    fn addresses_that_others_cover() {
        let covered = |one, others: &[&str]| {
            let others: Vec<Reach> = others.iter().map(|other| reach(other)).collect();
            reach(one).is_covered_by(&others)
        };
        assert!(covered("127.0.0.1:80", &["0.0.0.0:80"]));
        assert!(covered("127.0.0.1:80", &["[::]:80"]));
        assert!(covered("0.0.0.0:80", &["[::]:80"]));
        assert!(covered("[::1]:80", &["only [::]:80"]));
        assert!(covered("[::]:80", &["0.0.0.0:80", "only [::]:80"]));
        assert!(covered("only [::]:80", &["[::]:80"]));
        assert!(!covered("0.0.0.0:80", &["127.0.0.1:80", "10.0.0.1:80"]));
        assert!(!covered("[::]:80", &["0.0.0.0:80", "[::1]:80"]));
        assert!(!covered("127.0.0.1:80", &["only [::]:80", "0.0.0.0:81"]));
        assert!(!covered("127.0.0.1:80", &[]));
    }
}
