package sstp

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// suiteNames are the cipher suites that servers of TLS have had, by their numbers
// at IANA. TLS 1.3 has those from 0x1301 on to itself.
var suiteNames = map[uint16]string{
	0x0001: "RSA_WITH_NULL_MD5", 0x0002: "RSA_WITH_NULL_SHA",
	0x0003: "RSA_EXPORT_WITH_RC4_40_MD5", 0x0004: "RSA_WITH_RC4_128_MD5", 0x0005: "RSA_WITH_RC4_128_SHA",
	0x0006: "RSA_EXPORT_WITH_RC2_CBC_40_MD5", 0x0007: "RSA_WITH_IDEA_CBC_SHA", 0x0008: "RSA_EXPORT_WITH_DES40_CBC_SHA",
	0x0009: "RSA_WITH_DES_CBC_SHA", 0x000a: "RSA_WITH_3DES_EDE_CBC_SHA",
	0x0011: "DHE_DSS_EXPORT_WITH_DES40_CBC_SHA", 0x0012: "DHE_DSS_WITH_DES_CBC_SHA", 0x0013: "DHE_DSS_WITH_3DES_EDE_CBC_SHA",
	0x0014: "DHE_RSA_EXPORT_WITH_DES40_CBC_SHA", 0x0015: "DHE_RSA_WITH_DES_CBC_SHA", 0x0016: "DHE_RSA_WITH_3DES_EDE_CBC_SHA",
	0x0017: "DH_anon_EXPORT_WITH_RC4_40_MD5", 0x0018: "DH_anon_WITH_RC4_128_MD5", 0x0019: "DH_anon_EXPORT_WITH_DES40_CBC_SHA",
	0x001a: "DH_anon_WITH_DES_CBC_SHA", 0x001b: "DH_anon_WITH_3DES_EDE_CBC_SHA",
	0x002f: "RSA_WITH_AES_128_CBC_SHA", 0x0032: "DHE_DSS_WITH_AES_128_CBC_SHA", 0x0033: "DHE_RSA_WITH_AES_128_CBC_SHA",
	0x0034: "DH_anon_WITH_AES_128_CBC_SHA", 0x0035: "RSA_WITH_AES_256_CBC_SHA", 0x0038: "DHE_DSS_WITH_AES_256_CBC_SHA",
	0x0039: "DHE_RSA_WITH_AES_256_CBC_SHA", 0x003a: "DH_anon_WITH_AES_256_CBC_SHA", 0x003b: "RSA_WITH_NULL_SHA256",
	0x003c: "RSA_WITH_AES_128_CBC_SHA256", 0x003d: "RSA_WITH_AES_256_CBC_SHA256", 0x0040: "DHE_DSS_WITH_AES_128_CBC_SHA256",
	0x0041: "RSA_WITH_CAMELLIA_128_CBC_SHA", 0x0045: "DHE_RSA_WITH_CAMELLIA_128_CBC_SHA", 0x0046: "DH_anon_WITH_CAMELLIA_128_CBC_SHA",
	0x0067: "DHE_RSA_WITH_AES_128_CBC_SHA256", 0x006a: "DHE_DSS_WITH_AES_256_CBC_SHA256", 0x006b: "DHE_RSA_WITH_AES_256_CBC_SHA256",
	0x006c: "DH_anon_WITH_AES_128_CBC_SHA256", 0x006d: "DH_anon_WITH_AES_256_CBC_SHA256",
	0x0084: "RSA_WITH_CAMELLIA_256_CBC_SHA", 0x0088: "DHE_RSA_WITH_CAMELLIA_256_CBC_SHA", 0x0089: "DH_anon_WITH_CAMELLIA_256_CBC_SHA",
	0x0096: "RSA_WITH_SEED_CBC_SHA", 0x009a: "DHE_RSA_WITH_SEED_CBC_SHA", 0x009b: "DH_anon_WITH_SEED_CBC_SHA",
	0x009c: "RSA_WITH_AES_128_GCM_SHA256", 0x009d: "RSA_WITH_AES_256_GCM_SHA384", 0x009e: "DHE_RSA_WITH_AES_128_GCM_SHA256",
	0x009f: "DHE_RSA_WITH_AES_256_GCM_SHA384", 0x00a2: "DHE_DSS_WITH_AES_128_GCM_SHA256", 0x00a3: "DHE_DSS_WITH_AES_256_GCM_SHA384",
	0x00a6: "DH_anon_WITH_AES_128_GCM_SHA256", 0x00a7: "DH_anon_WITH_AES_256_GCM_SHA384",
	0x00ba: "RSA_WITH_CAMELLIA_128_CBC_SHA256", 0x00be: "DHE_RSA_WITH_CAMELLIA_128_CBC_SHA256",
	0x00c0: "RSA_WITH_CAMELLIA_256_CBC_SHA256", 0x00c4: "DHE_RSA_WITH_CAMELLIA_256_CBC_SHA256",
	0xc006: "ECDHE_ECDSA_WITH_NULL_SHA", 0xc007: "ECDHE_ECDSA_WITH_RC4_128_SHA", 0xc008: "ECDHE_ECDSA_WITH_3DES_EDE_CBC_SHA",
	0xc009: "ECDHE_ECDSA_WITH_AES_128_CBC_SHA", 0xc00a: "ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
	0xc010: "ECDHE_RSA_WITH_NULL_SHA", 0xc011: "ECDHE_RSA_WITH_RC4_128_SHA", 0xc012: "ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
	0xc013: "ECDHE_RSA_WITH_AES_128_CBC_SHA", 0xc014: "ECDHE_RSA_WITH_AES_256_CBC_SHA",
	0xc015: "ECDH_anon_WITH_NULL_SHA", 0xc016: "ECDH_anon_WITH_RC4_128_SHA", 0xc017: "ECDH_anon_WITH_3DES_EDE_CBC_SHA",
	0xc018: "ECDH_anon_WITH_AES_128_CBC_SHA", 0xc019: "ECDH_anon_WITH_AES_256_CBC_SHA",
	0xc023: "ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", 0xc024: "ECDHE_ECDSA_WITH_AES_256_CBC_SHA384",
	0xc027: "ECDHE_RSA_WITH_AES_128_CBC_SHA256", 0xc028: "ECDHE_RSA_WITH_AES_256_CBC_SHA384",
	0xc02b: "ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02c: "ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
	0xc02f: "ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc030: "ECDHE_RSA_WITH_AES_256_GCM_SHA384",
	0xc050: "RSA_WITH_ARIA_128_GCM_SHA256", 0xc051: "RSA_WITH_ARIA_256_GCM_SHA384",
	0xc052: "DHE_RSA_WITH_ARIA_128_GCM_SHA256", 0xc053: "DHE_RSA_WITH_ARIA_256_GCM_SHA384",
	0xc05c: "ECDHE_ECDSA_WITH_ARIA_128_GCM_SHA256", 0xc05d: "ECDHE_ECDSA_WITH_ARIA_256_GCM_SHA384",
	0xc060: "ECDHE_RSA_WITH_ARIA_128_GCM_SHA256", 0xc061: "ECDHE_RSA_WITH_ARIA_256_GCM_SHA384",
	0xc072: "ECDHE_ECDSA_WITH_CAMELLIA_128_CBC_SHA256", 0xc073: "ECDHE_ECDSA_WITH_CAMELLIA_256_CBC_SHA384",
	0xc076: "ECDHE_RSA_WITH_CAMELLIA_128_CBC_SHA256", 0xc077: "ECDHE_RSA_WITH_CAMELLIA_256_CBC_SHA384",
	0xc09c: "RSA_WITH_AES_128_CCM", 0xc09d: "RSA_WITH_AES_256_CCM", 0xc09e: "DHE_RSA_WITH_AES_128_CCM", 0xc09f: "DHE_RSA_WITH_AES_256_CCM",
	0xc0a0: "RSA_WITH_AES_128_CCM_8", 0xc0a1: "RSA_WITH_AES_256_CCM_8", 0xc0a2: "DHE_RSA_WITH_AES_128_CCM_8", 0xc0a3: "DHE_RSA_WITH_AES_256_CCM_8",
	0xc0ac: "ECDHE_ECDSA_WITH_AES_128_CCM", 0xc0ad: "ECDHE_ECDSA_WITH_AES_256_CCM",
	0xc0ae: "ECDHE_ECDSA_WITH_AES_128_CCM_8", 0xc0af: "ECDHE_ECDSA_WITH_AES_256_CCM_8",
	0xcca8: "ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9: "ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
	0xccaa: "DHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
	0x1301: "AES_128_GCM_SHA256", 0x1302: "AES_256_GCM_SHA384", 0x1303: "CHACHA20_POLY1305_SHA256",
	0x1304: "AES_128_CCM_SHA256", 0x1305: "AES_128_CCM_8_SHA256",
}

// A Suite is a cipher suite of TLS, by its number at IANA.
type Suite uint16

// String returns its name at IANA.
func (s Suite) String() string {
	if name, ok := suiteNames[uint16(s)]; ok {
		return "TLS_" + name
	}
	return fmt.Sprintf("0x%04X", uint16(s))
}

// MarshalText returns the name.
func (s Suite) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Null reports whether s doesn't encrypt. DirectAccess clients of Windows 8 and
// later prefer such suites, since they encrypt by IPsec.
func (s Suite) Null() bool { return strings.Contains(s.String(), "_NULL_") }

// forward reports whether s has forward secrecy and authenticated encryption, for
// versions before TLS 1.3, whose suites all have.
func (s Suite) forward() bool {
	name := s.String()
	return strings.Contains(name, "DHE_") && (strings.Contains(name, "_GCM_") || strings.Contains(name, "_POLY1305_") || strings.Contains(name, "_CCM"))
}

// Weakness says what is wrong with s, or "".
func (s Suite) Weakness() string {
	name := s.String()
	for _, w := range []struct{ part, why string }{
		{"_NULL_", "it doesn't encrypt"},
		{"_anon_", "it proves nothing of who the server is"},
		{"_EXPORT_", "its keys are short enough to be guessed"},
		{"_RC4_", "RC4 is broken"},
		{"_RC2_", "RC2 is broken"},
		{"_DES_CBC", "DES is broken"},
		{"_DES40_", "DES is broken"},
		{"_3DES_", "3DES has blocks so small that a long session leaks (SWEET32)"},
		{"_IDEA_", "IDEA has blocks so small that a long session leaks"},
		{"_MD5", "MD5 is broken"},
	} {
		if strings.Contains(name, w.part) {
			return w.why
		}
	}
	return ""
}

// suitesFor returns the suites that are asked for with a version, likely ones
// first.
func suitesFor(version uint16) []uint16 {
	var out []uint16
	for s := range suiteNames {
		if (s>>8 == 0x13) == (version == versionTLS13) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b uint16) int { return cmp.Compare(b, a) })
	return out
}
