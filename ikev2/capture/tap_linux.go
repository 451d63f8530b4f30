package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/bpf"
)

// A Tap reads packets from a network interface, by AF_PACKET. Only what a Decoder
// could use gets to this process: UDP, fragments, ESP and ICMP are told from the
// rest in the kernel.
type Tap struct {
	handle *pcapgo.EthernetHandle
	link   LinkType
	number int
	stop   func() bool // of the wait for the context
	ended  atomic.Bool
}

// tapOctets is how much of each packet is read: jumbo frames fit in.
const tapOctets = 10240

// OpenTap opens a network interface, by its name, until ctx is done or Close is
// called. It needs CAP_NET_RAW.
func OpenTap(ctx context.Context, name string) (*Tap, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("capture: interface %s: %w", name, err)
	}
	t := &Tap{link: LinkEthernet}
	if len(i.HardwareAddr) == 0 && i.Flags&net.FlagLoopback == 0 {
		t.link = LinkRaw // a tunnel
	}
	if t.handle, err = pcapgo.NewEthernetHandle(name); err != nil {
		return nil, fmt.Errorf("capture: tapping %s: %w (it needs root, or CAP_NET_RAW)", name, err)
	}
	filter, err := bpf.Assemble(tapFilter(t.link))
	if err == nil {
		err = t.handle.SetBPF(filter)
	}
	if err == nil {
		err = t.handle.SetCaptureLength(tapOctets)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture: tapping %s: %w", name, err), t.handle.Close())
	}
	t.stop = context.AfterFunc(ctx, t.shut)
	return t, nil
}

func (t *Tap) shut() {
	if !t.ended.Swap(true) {
		_ = t.handle.Close() // what was open is closed
	}
}

// Close ends the tap; Next returns then.
func (t *Tap) Close() {
	t.stop()
	t.shut()
}

// tapFilter lets pass what a Decoder could use of untagged IPv4, and all IPv6 and
// tagged packets.
func tapFilter(link LinkType) []bpf.Instruction {
	var pre []bpf.Instruction
	ip := uint32(0)
	const accept = 1 << 18
	if link == LinkEthernet {
		ip = 14
		pre = []bpf.Instruction{
			bpf.LoadAbsolute{Off: 12, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherIPv4, SkipTrue: 6},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherIPv6, SkipTrue: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherVLAN, SkipTrue: 3},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherQinQ, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherOld, SkipTrue: 1},
			bpf.RetConstant{Val: 0},
			bpf.RetConstant{Val: accept},
		}
	} else {
		pre = []bpf.Instruction{
			bpf.LoadAbsolute{Off: 0, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4, SkipTrue: 1},
			bpf.RetConstant{Val: accept},
		}
	}
	return append(pre,
		bpf.LoadAbsolute{Off: ip + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoUDP, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoESP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoICMP, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: accept},
	)
}

// Next returns the next packet. The error is io.EOF after the end.
func (t *Tap) Next() (Packet, error) {
	data, ci, err := t.handle.ZeroCopyReadPacketData()
	if err != nil {
		if t.ended.Load() {
			return Packet{}, io.EOF
		}
		return Packet{}, fmt.Errorf("capture: %w", err)
	}
	t.number++
	return Packet{Number: t.number, Time: ci.Timestamp, Link: t.link, Data: data, Length: max(ci.Length, len(data))}, nil
}
