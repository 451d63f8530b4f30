//go:build !linux

package ikev2

import (
	"context"
	"errors"
	"net/netip"
)

func dialMTU(context.Context, netip.AddrPort) (mtuSocket, error) {
	return nil, errors.New("it takes Linux")
}
