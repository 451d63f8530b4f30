package ikev2

import (
	"bytes"
	"encoding/hex"
)

// A VendorID is the body of a Vendor ID payload: by convention a hash of some
// text, sometimes followed by a version.
type VendorID []byte

// vendors by the first octets of their IDs.
var vendors = [...]struct{ id, name string }{
	{"\x1e\x2b\x51\x69\x05\x99\x1c\x7d\x7c\x96\xfc\xbf\xb5\x87\xe4\x61", "Microsoft IKE"},
	{"\xfb\x1d\xe3\xcd\xf3\x41\xb7\xea\x16\xb7\xe5\xbe\x08\x55\xf1\x20", "Microsoft negotiation discovery"},
	{"\x26\x24\x4d\x38\xed\xdb\x61\xb3\x17\x2a\x36\xe3\xd0\xcf\xb8\x19", "Microsoft initial contact"},
	{"\x01\x52\x8b\xbb\xc0\x06\x96\x12\x18\x49\xab\x9a\x1c\x5b\x2a\x51", "Microsoft CGA"},
	{"\x88\x2f\xe5\x6d\x6f\xd2\x0d\xbc\x22\x51\x61\x3b\x2e\xbe\x5b\xeb", "strongSwan"},
}

// WindowsVendorIDs returns the vendor IDs of a Windows client, in its order, with
// the versions that follow the hashes since Windows 7.
func WindowsVendorIDs() []VendorID {
	return []VendorID{
		VendorID(vendors[0].id + "\x00\x00\x00\x09"), VendorID(vendors[1].id), VendorID(vendors[2].id),
		VendorID(vendors[3].id + "\x00\x00\x00\x02"),
	}
}

// Name returns whose ID it is, or "".
func (v VendorID) Name() string {
	for _, k := range vendors {
		if bytes.HasPrefix(v, []byte(k.id)) {
			return k.name
		}
	}
	return ""
}

// String returns the name, or the ID in hexadecimal, at most 32 octets of it.
func (v VendorID) String() string {
	if n := v.Name(); n != "" {
		return n
	}
	return hex.EncodeToString(v[:min(len(v), 32)])
}
