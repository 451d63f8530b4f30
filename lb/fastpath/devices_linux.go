package fastpath

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// attachment is the programs at one network device.
type attachment struct {
	name    string
	tc, xdp link.Link // nil: not attached there
}

func (a *attachment) hook() Hook {
	if a.xdp != nil {
		return HookXDP
	}
	return HookTC
}

// there reports whether the programs are still attached: the device may have gone and
// another have its number, or somebody has detached them.
func (a *attachment) there() bool {
	for _, l := range []link.Link{a.tc, a.xdp} {
		if l == nil {
			continue
		}
		info, err := l.Info()
		if err != nil {
			continue // nobody can tell
		}
		if x := info.TCX(); x != nil && x.Ifindex == 0 {
			return false
		}
		if x := info.XDP(); x != nil && x.Ifindex == 0 {
			return false
		}
	}
	return true
}

// close closes the process's links: what isn't pinned is detached.
func (a *attachment) close() error {
	var errs []error
	for _, l := range []link.Link{a.tc, a.xdp} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// refresh tells the kernel's programs of the devices that there are, and attaches
// them to those that are to have them. p.mu is held.
func (p *Path) refresh() error {
	all, err := netDevices()
	if err != nil {
		return err
	}
	want, err := p.wanted(all)
	if err != nil {
		return err
	}
	for i, a := range p.attached {
		if !slices.ContainsFunc(all, func(d netDevice) bool { return d.index == i }) || !a.there() {
			p.gone(i)
		}
	}
	var errs []error
	family := uint16(0)
	if p.c.Hook == HookXDP {
		family = netdevFamily()
	}
	for i := range all {
		d := &all[i]
		if a := p.attached[d.index]; a == nil && slices.Contains(want, d.index) {
			errs = append(errs, p.attach(d, family))
		}
	}
	p.tell(all, family)
	errs = append(errs, p.bound())
	if err := oneLine(errs...); err != nil || len(p.attached) > 0 {
		return err
	}
	return errors.New("there is no network device to attach to: name them in Interfaces")
}

// oneLine joins errors, with what an administrator reads in one line.
func oneLine(errs ...error) error {
	var all error
	for _, err := range errs {
		switch {
		case err == nil:
		case all == nil:
			all = err
		default:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

// wanted returns the numbers of the devices that packets of flows come in by.
func (p *Path) wanted(all []netDevice) (list []uint32, err error) {
	add := func(i uint32) {
		j := slices.IndexFunc(all, func(d netDevice) bool { return d.index == i })
		if j >= 0 && all[j].ethernet && all[j].up && i < maxDevices && !slices.Contains(list, i) {
			list = append(list, i)
		}
	}
	if len(p.c.Interfaces) > 0 {
		for _, d := range all {
			if slices.Contains(p.c.Interfaces, d.name) {
				add(d.index)
			}
		}
		return list, nil
	}
	have, err := addresses()
	if err != nil {
		return nil, err
	}
	for i, addrs := range have {
		if slices.ContainsFunc(addrs, p.listensAt) {
			add(i)
		}
	}
	for _, a := range p.c.Toward {
		if i, err := deviceTo(a); err == nil {
			add(i)
		}
	}
	// Clients may be anywhere: documentation's addresses are where nobody is.
	for _, a := range []string{"192.0.2.1", "2001:db8::1"} {
		if i, err := deviceTo(netip.MustParseAddr(a)); err == nil {
			add(i)
		}
	}
	return list, nil
}

func (p *Path) listensAt(a netip.Addr) bool {
	return slices.ContainsFunc(p.c.At, func(at netip.AddrPort) bool { return includes(at.Addr(), a) })
}

// includes reports whether a listener at an address, which may be unspecified, is also
// at one of the machine's.
func includes(at, a netip.Addr) bool {
	return at.Unmap() == a || at.IsUnspecified() && (at.Is6() || a.Is4()) && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}

// bound has the kernel's programs know to which listeners first messages are bounded.
func (p *Path) bound() error {
	want, err := p.listeners()
	if err != nil {
		return err
	}
	if p.bounded == nil {
		p.bounded = make(map[listener]bool)
		var old listener
		var none uint32
		for all := p.maps.Listeners.Iterate(); all.Next(&old, &none); {
			p.bounded[old] = true // an earlier process's
		}
	}
	for l := range p.bounded {
		if !want[l] {
			if err := p.maps.Listeners.Delete(&l); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("the bound of first messages: %w", err)
			}
			delete(p.bounded, l)
		}
	}
	for l := range want {
		if p.bounded[l] {
			continue
		}
		if err := p.maps.Listeners.Put(&l, uint32(0)); err != nil {
			return fmt.Errorf("the bound of first messages: %w", err)
		}
		p.bounded[l] = true
	}
	return nil
}

// listeners returns all of At, with the machine's addresses in place of unspecified ones.
func (p *Path) listeners() (map[listener]bool, error) {
	list := make(map[listener]bool)
	var have map[uint32][]netip.Addr
	for _, at := range p.c.At {
		if !at.Addr().IsUnspecified() {
			list[listener{Addr: at.Addr().As16(), Port: port(at.Port())}] = true
			continue
		}
		var err error
		if have == nil {
			if have, err = addresses(); err != nil {
				return nil, err
			}
		}
		for _, addrs := range have {
			for _, a := range addrs {
				if includes(at.Addr(), a) {
					list[listener{Addr: a.As16(), Port: port(at.Port())}] = true
				}
			}
		}
	}
	return list, nil
}

// tell writes the kernel's table of devices.
func (p *Path) tell(all []netDevice, family uint16) {
	table := make([]device, maxDevices)
	for _, d := range all {
		if d.index >= maxDevices || !d.ethernet || !d.up {
			continue
		}
		t := &table[d.index]
		*t = device{By: d.index, TC: 1, MAC: d.mac}
		if p.c.Hook != HookXDP {
			continue
		}
		if d.vlan != 0 && d.parent < maxDevices {
			t.By, t.VLAN = d.parent, d.vlan
		}
		if a := p.attached[t.By]; a != nil && a.xdp != nil {
			if slices.ContainsFunc(all, func(by netDevice) bool { return by.index == t.By && by.mac == d.mac }) {
				t.Seen = 1 // XDP leaves other addresses to TC
			}
			if xdpFeatures(family, t.By)&xdpSend != 0 {
				t.XDP = 1
			}
		}
	}
	size := int(unsafe.Sizeof(device{}))
	for i := range table {
		b := unsafe.Slice((*byte)(unsafe.Pointer(&table[i])), size)
		if at := p.devices[i*size : (i+1)*size]; string(at) != string(b) {
			copy(at, b)
		}
	}
}

// attach attaches the programs to a device.
func (p *Path) attach(d *netDevice, family uint16) error {
	a := &attachment{name: d.name}
	var tcErr, xdpErr error
	if p.c.Hook == HookXDP && d.vlan == 0 {
		if xdpFeatures(family, d.index)&(xdpBasic|xdpRedirect) == xdpBasic|xdpRedirect {
			a.xdp, xdpErr = p.linked(fmt.Sprintf("xdp-%d", d.index), p.xdp, func() (link.Link, error) {
				return link.AttachXDP(link.XDPOptions{Program: p.xdp, Interface: int(d.index), Flags: link.XDPDriverMode})
			})
		} else {
			xdpErr = errors.New("its driver has no XDP that can redirect")
		}
		if xdpErr != nil {
			p.log(slog.LevelWarn, "no XDP, so TC is used", "device", d.name, "error", xdpErr)
		}
	}
	a.tc, tcErr = p.linked(fmt.Sprintf("tc-%d", d.index), p.tc, func() (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: int(d.index), Program: p.tc, Attach: ebpf.AttachTCXIngress})
	})
	if a.tc == nil && a.xdp == nil {
		if errors.Is(tcErr, ebpf.ErrNotSupported) {
			return fmt.Errorf("device %s: the kernel (%s) has no TCX, which came with Linux 6.6: %w: %w", d.name, release(), ErrUnsupported, tcErr)
		}
		return fmt.Errorf("device %s: attaching the program: %w", d.name, tcErr)
	}
	p.attached[d.index] = a
	p.log(slog.LevelInfo, "attached", "device", d.name, "hook", a.hook())
	return nil
}

// linked goes on with a link that is pinned by that name, with our program; or else
// makes one, and pins it.
func (p *Path) linked(name string, prog *ebpf.Program, attach func() (link.Link, error)) (link.Link, error) {
	pin := filepath.Join(p.pins, name)
	if p.pins != "" {
		l, err := link.LoadPinnedLink(pin, nil)
		if err == nil {
			if err = l.Update(prog); err == nil {
				return l, nil
			}
			// It is of a device that was there before, with the same number.
			err = errors.Join(l.Unpin(), l.Close())
		} else if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		if err != nil {
			return nil, err
		}
	}
	l, err := attach()
	if err != nil || p.pins == "" {
		return l, err
	}
	if err := l.Pin(pin); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// gone forgets a device that isn't there any more.
func (p *Path) gone(i uint32) {
	a := p.attached[i]
	delete(p.attached, i)
	if err := errors.Join(a.unpin(p.pins), a.close()); err != nil {
		p.log(slog.LevelDebug, "a device has gone", "device", a.name, "error", err)
	}
}

func (a *attachment) unpin(pins string) error {
	var errs []error
	for _, l := range []link.Link{a.tc, a.xdp} {
		if l != nil && pins != "" {
			errs = append(errs, l.Unpin())
		}
	}
	return errors.Join(errs...)
}

// detachAll unpins the links, so that they end when they are closed.
func (p *Path) detachAll() error {
	var errs []error
	for _, a := range p.attached {
		errs = append(errs, a.unpin(p.pins))
	}
	return errors.Join(errs...)
}

// forwarding sees to it that routes can be looked up.
func (p *Path) forwarding() error {
	families := map[string]bool{}
	all := slices.Clone(p.c.Toward)
	for _, at := range p.c.At {
		all = append(all, at.Addr())
	}
	for _, a := range all {
		switch {
		case a.Unmap().Is4():
			families["ipv4"] = true
		case a.IsUnspecified():
			families["ipv4"] = true // [::] is both
		default:
			families["ipv6"] = true
		}
	}
	if len(families) == 0 {
		families["ipv4"] = true
	}
	var errs []error
	for _, f := range []string{"ipv4", "ipv6"} {
		file := "/proc/sys/net/" + f + "/conf/lo/forwarding"
		b, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(b)) == "1" {
			continue // it can't be looked at; the counters will tell
		}
		if err := os.WriteFile(file, []byte("1"), 0); err != nil && families[f] {
			errs = append(errs, fmt.Errorf("the kernel looks up no routes while net.%s.conf.lo.forwarding is 0, and it can't be set from here (sysctl -w net.%s.conf.lo.forwarding=1): %w", f, f, err))
		}
	}
	return oneLine(errs...)
}
