package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// This file asks the kernel about network devices and routes.

// netDevice is a network device as the kernel tells of it.
type netDevice struct {
	index, parent uint32
	name          string
	mac           [6]byte
	ethernet, up  bool
	vlan          uint16 // 0: it is none of 802.1Q
}

// attributes calls f for each attribute in b.
func attributes(b []byte, f func(typ uint16, v []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}

func attribute(typ uint16, v []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	return append(b, make([]byte, -len(b)&3)...)
}

// request sends a message and returns the bodies of those that answer it.
func request(family int, typ uint16, flags uint16, body []byte) ([][]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	m = binary.NativeEndian.AppendUint16(m, typ)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|flags)
	m = append(m, make([]byte, 8)...) // a number, and whose it is: nobody else's
	if err := unix.Sendto(fd, append(m, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	return answers(fd, flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP)
}

// answers receives what answers a request: several messages if dump is set.
func answers(fd int, dump bool) (bodies [][]byte, err error) {
	b := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		for m := b[:n]; len(m) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(m))
			if size < unix.SizeofNlMsghdr || size > len(m) {
				return nil, errors.New("netlink: a message of a wrong size")
			}
			body := m[unix.SizeofNlMsghdr:size]
			switch binary.NativeEndian.Uint16(m[4:]) {
			case unix.NLMSG_DONE:
				return bodies, nil
			case unix.NLMSG_ERROR:
				if len(body) >= 4 {
					if e := -int32(binary.NativeEndian.Uint32(body)); e != 0 {
						return nil, unix.Errno(e)
					}
				}
				return bodies, nil
			}
			bodies = append(bodies, append([]byte(nil), body...))
			m = m[min((size+3)&^3, len(m)):]
		}
		if !dump {
			return bodies, nil
		}
	}
}

// netDevices lists the devices.
func netDevices() ([]netDevice, error) {
	bodies, err := request(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, fmt.Errorf("listing network devices: %w", err)
	}
	var list []netDevice
	for _, b := range bodies {
		if len(b) < unix.SizeofIfInfomsg {
			continue
		}
		d := netDevice{
			ethernet: binary.NativeEndian.Uint16(b[2:]) == unix.ARPHRD_ETHER,
			index:    binary.NativeEndian.Uint32(b[4:]),
			up:       binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
		}
		attributes(b[unix.SizeofIfInfomsg:], d.attribute)
		list = append(list, d)
	}
	return list, nil
}

func (d *netDevice) attribute(typ uint16, v []byte) {
	switch typ {
	case unix.IFLA_IFNAME:
		d.name = unix.ByteSliceToString(v)
	case unix.IFLA_ADDRESS:
		copy(d.mac[:], v)
	case unix.IFLA_LINK:
		if len(v) >= 4 {
			d.parent = binary.NativeEndian.Uint32(v)
		}
	case unix.IFLA_LINKINFO:
		kind := ""
		attributes(v, func(typ uint16, v []byte) {
			switch {
			case typ == unix.IFLA_INFO_KIND:
				kind = unix.ByteSliceToString(v)
			case typ == unix.IFLA_INFO_DATA && kind == "vlan":
				id, proto := uint16(0), uint16(unix.ETH_P_8021Q)
				attributes(v, func(typ uint16, v []byte) {
					switch {
					case typ == 1 && len(v) >= 2: // IFLA_VLAN_ID
						id = binary.NativeEndian.Uint16(v)
					case typ == 5 && len(v) >= 2: // IFLA_VLAN_PROTOCOL
						proto = binary.BigEndian.Uint16(v)
					}
				})
				if proto == unix.ETH_P_8021Q {
					d.vlan = id
				}
			}
		})
	}
}

// addresses returns the addresses of devices.
func addresses() (map[uint32][]netip.Addr, error) {
	bodies, err := request(unix.NETLINK_ROUTE, unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	list := make(map[uint32][]netip.Addr)
	for _, b := range bodies {
		if len(b) < unix.SizeofIfAddrmsg {
			continue
		}
		index := binary.NativeEndian.Uint32(b[4:])
		var local, peer netip.Addr
		attributes(b[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
			a, ok := netip.AddrFromSlice(v)
			switch {
			case ok && typ == unix.IFA_LOCAL:
				local = a
			case ok && typ == unix.IFA_ADDRESS:
				peer = a
			}
		})
		if !local.IsValid() {
			local = peer
		}
		if local.IsValid() {
			list[index] = append(list[index], local)
		}
	}
	return list, nil
}

// deviceTo returns the device by which the routes lead to an address.
func deviceTo(a netip.Addr) (index uint32, err error) {
	a = a.Unmap()
	family, size := byte(unix.AF_INET), 32
	if a.Is6() {
		family, size = unix.AF_INET6, 128
	}
	body := append([]byte{family, byte(size)}, make([]byte, unix.SizeofRtMsg-2)...)
	bodies, err := request(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, 0, append(body, attribute(unix.RTA_DST, a.AsSlice())...))
	if err != nil {
		return 0, err
	}
	for _, b := range bodies {
		if len(b) < unix.SizeofRtMsg {
			continue
		}
		attributes(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
			if typ == unix.RTA_OIF && len(v) >= 4 {
				index = binary.NativeEndian.Uint32(v)
			}
		})
	}
	return index, nil
}

const (
	xdpBasic    = 1 << 0 // NETDEV_XDP_ACT_BASIC: programs can be attached to the driver
	xdpRedirect = 1 << 1 // NETDEV_XDP_ACT_REDIRECT: and send by other devices
	xdpSend     = 1 << 2 // NETDEV_XDP_ACT_NDO_XMIT: it sends what others redirect to it
)

// xdpFeatures returns what the driver of a device can do with XDP. A kernel that
// doesn't say (before 6.3) has it be nothing.
func xdpFeatures(family uint16, index uint32) (features uint64) {
	body := append([]byte{1, 1, 0, 0}, attribute(1, binary.NativeEndian.AppendUint32(nil, index))...) // NETDEV_CMD_DEV_GET
	bodies, err := request(unix.NETLINK_GENERIC, family, 0, body)
	if err != nil {
		return 0
	}
	for _, b := range bodies {
		attributes(b[min(4, len(b)):], func(typ uint16, v []byte) {
			if typ == 3 && len(v) >= 8 { // NETDEV_A_DEV_XDP_FEATURES
				features = binary.NativeEndian.Uint64(v)
			}
		})
	}
	return features
}

// netdevFamily returns the number of the generic netlink family that tells of
// devices, or 0.
func netdevFamily() (number uint16) {
	body := append([]byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}, attribute(unix.CTRL_ATTR_FAMILY_NAME, []byte("netdev\x00"))...)
	bodies, err := request(unix.NETLINK_GENERIC, unix.GENL_ID_CTRL, 0, body)
	if err != nil {
		return 0
	}
	for _, b := range bodies {
		attributes(b[min(4, len(b)):], func(typ uint16, v []byte) {
			if typ == unix.CTRL_ATTR_FAMILY_ID && len(v) >= 2 {
				number = binary.NativeEndian.Uint16(v)
			}
		})
	}
	return number
}
