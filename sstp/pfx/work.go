package pfx

import (
	"encoding/asn1"
	"fmt"
	"math/big"
)

// A PFX says itself how often its password is to be hashed, in numbers of any size:
// one of 100 bytes can keep a processor busy for years. Windows says 2,000, OpenSSL
// 2,048, and the careful a million; there are three such numbers in a usual file.

// maxWork bounds the sum of these numbers. It takes some seconds.
const maxWork = 5_000_000

// maxDepth is deeper than anything is in a PFX that counts.
const maxDepth = 40

// work returns the sum of all the iterations that b asks for, as far as it can be
// read without a password, or something over most if it is more.
//
// They come in three forms (RFC 7292 §4 and appendix C, RFC 8018 §A.2), which have
// in common that the number follows the salt, an OCTET STRING. What is parsed here
// is more than what a PFX can be, lest one be parsed differently later.
func work(b []byte, most int64, depth int) int64 {
	var sum int64
	salt := false
	for len(b) > 0 && depth < maxDepth && sum <= most {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(b, &v)
		if err != nil {
			break
		}
		b = rest
		if salt && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger {
			sum += iterations(v.FullBytes, most)
		}
		salt = v.Tag == asn1.TagOctetString
		// Values hold others, whatever they are called.
		if v.IsCompound || len(v.Bytes) > 0 && v.Bytes[0] == asn1.TagSequence|0x20 {
			sum += work(v.Bytes, most, depth+1)
		}
	}
	return sum
}

// iterations reads a number, and takes one that is too large for one over most.
func iterations(der []byte, most int64) int64 {
	var n *big.Int
	if _, err := asn1.Unmarshal(der, &n); err != nil || n.Sign() < 0 {
		return 0 // no loop is run
	}
	if !n.IsInt64() || n.Int64() > most {
		return most + 1
	}
	return n.Int64()
}

// checkWork reports an error if b asks for more than most iterations.
func checkWork(b []byte, most int64) error {
	if work(b, most, 0) > most {
		return fmt.Errorf("pfx: it wants its password hashed more than %d times: export it anew, with fewer iterations", most)
	}
	return nil
}
