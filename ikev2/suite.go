package ikev2

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Suite is what two peers have agreed on: one algorithm of each type. The zero
// value of a field means that there is none. Suites can be compared with ==.
type Suite struct { //nolint:recvcheck // its reading methods take it by value, as its users do
	// Protocol is what it protects: IKE messages or, with ProtocolESP, packets.
	Protocol ProtocolID
	// Encr and KeyBits are the encryption and its key length, where that has to
	// be said.
	Encr    uint16
	KeyBits uint16
	// Integ is the integrity check; IntegNone with an Encr that has its own.
	Integ uint16
	// PRF derives the keys; of IKE only.
	PRF uint16
	// KE is the key exchange; of ESP only if there is one of its own.
	KE Group
	// AddKE are additional key exchanges (RFC 9370).
	AddKE [7]Group
	// ESN says what sequence numbers ESP has.
	ESN uint16
}

// Transforms returns the algorithms in the order of their types.
func (s Suite) Transforms() []Transform {
	ts := make([]Transform, 0, 5)
	if s.Encr != 0 {
		ts = append(ts, Transform{TransformEncr, s.Encr, s.KeyBits})
	}
	if s.Integ != IntegNone {
		ts = append(ts, Transform{TransformInteg, s.Integ, 0})
	}
	if s.PRF != 0 {
		ts = append(ts, Transform{TransformPRF, s.PRF, 0})
	}
	if s.KE != GroupNone {
		ts = append(ts, Transform{TransformKE, uint16(s.KE), 0})
	}
	for i, g := range s.AddKE {
		if g != GroupNone {
			ts = append(ts, Transform{TransformAddKE1 + TransformType(i), uint16(g), 0})
		}
	}
	if s.Protocol == ProtocolESP || s.Protocol == ProtocolAH {
		ts = append(ts, Transform{TransformESN, s.ESN, 0})
	}
	return ts
}

// Proposal returns a proposal of nothing else than the suite.
func (s Suite) Proposal() Proposal {
	return Proposal{Number: 1, Protocol: s.Protocol, Transforms: s.Transforms()}
}

// String joins the algorithms, as strongSwan's log does.
func (s Suite) String() string { return s.Proposal().String() }

// MarshalText returns the Suite as String does.
func (s Suite) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// AEAD reports whether the encryption of s checks integrity by itself.
func (s Suite) AEAD() bool { return aead(s.Encr) }

// aead reports whether an encryption algorithm needs no integrity algorithm.
func aead(encr uint16) bool {
	switch encr {
	case EncrAESCCM8, EncrAESCCM12, EncrAESCCM16, EncrAESGCM8, EncrAESGCM12, EncrAESGCM16, EncrNULLAuthAESGMAC,
		EncrCamelliaCCM8, EncrCamelliaCCM12, EncrCamelliaCCM16, EncrChaCha20Poly1305, EncrAESCCM8IIV, EncrAESGCM16IIV,
		EncrChaCha20Poly1305IIV, EncrKuznyechikMGM, EncrMagmaMGM, EncrKuznyechikMGMMAC, EncrMagmaMGMMAC:
		return true
	}
	return false
}

// SuiteOf returns what p says if it leaves no choice, as an answer must not. It
// fails if there is one.
func SuiteOf(p Proposal) (Suite, error) {
	s := Suite{Protocol: p.Protocol}
	seen := map[TransformType]bool{}
	for _, t := range p.Transforms {
		if seen[t.Type] {
			return Suite{}, fmt.Errorf("ikev2: proposal %v leaves a choice of %v", p, t.Type)
		}
		seen[t.Type] = true
		s.set(t)
	}
	return s, nil
}

// set takes t as the algorithm of its type.
func (s *Suite) set(t Transform) {
	switch {
	case t.Type == TransformEncr:
		s.Encr, s.KeyBits = t.ID, t.KeyBits
	case t.Type == TransformInteg:
		s.Integ = t.ID
	case t.Type == TransformPRF:
		s.PRF = t.ID
	case t.Type == TransformKE:
		s.KE = Group(t.ID)
	case t.Type == TransformESN:
		s.ESN = t.ID
	case t.Type.keyExchange():
		s.AddKE[t.Type-TransformAddKE1] = Group(t.ID)
	}
}

// keyword is one algorithm as strongSwan's configuration spells it.
type keyword struct {
	word string
	t    Transform
}

// The words in the order in which they are tried for the way back: the first of
// each algorithm is the usual one.
var keywords = [...]keyword{
	{"des", Transform{TransformEncr, EncrDES, 0}},
	{"3des", Transform{TransformEncr, Encr3DES, 0}},
	{"null", Transform{TransformEncr, EncrNULL, 0}},
	{"aes128", Transform{TransformEncr, EncrAESCBC, 128}},
	{"aes192", Transform{TransformEncr, EncrAESCBC, 192}},
	{"aes256", Transform{TransformEncr, EncrAESCBC, 256}},
	{"aes", Transform{TransformEncr, EncrAESCBC, 128}},
	{"aes128ctr", Transform{TransformEncr, EncrAESCTR, 128}},
	{"aes192ctr", Transform{TransformEncr, EncrAESCTR, 192}},
	{"aes256ctr", Transform{TransformEncr, EncrAESCTR, 256}},
	{"aes128ccm8", Transform{TransformEncr, EncrAESCCM8, 128}},
	{"aes192ccm8", Transform{TransformEncr, EncrAESCCM8, 192}},
	{"aes256ccm8", Transform{TransformEncr, EncrAESCCM8, 256}},
	{"aes128ccm12", Transform{TransformEncr, EncrAESCCM12, 128}},
	{"aes192ccm12", Transform{TransformEncr, EncrAESCCM12, 192}},
	{"aes256ccm12", Transform{TransformEncr, EncrAESCCM12, 256}},
	{"aes128ccm16", Transform{TransformEncr, EncrAESCCM16, 128}},
	{"aes192ccm16", Transform{TransformEncr, EncrAESCCM16, 192}},
	{"aes256ccm16", Transform{TransformEncr, EncrAESCCM16, 256}},
	{"aes128gcm8", Transform{TransformEncr, EncrAESGCM8, 128}},
	{"aes192gcm8", Transform{TransformEncr, EncrAESGCM8, 192}},
	{"aes256gcm8", Transform{TransformEncr, EncrAESGCM8, 256}},
	{"aes128gcm12", Transform{TransformEncr, EncrAESGCM12, 128}},
	{"aes192gcm12", Transform{TransformEncr, EncrAESGCM12, 192}},
	{"aes256gcm12", Transform{TransformEncr, EncrAESGCM12, 256}},
	{"aes128gcm16", Transform{TransformEncr, EncrAESGCM16, 128}},
	{"aes192gcm16", Transform{TransformEncr, EncrAESGCM16, 192}},
	{"aes256gcm16", Transform{TransformEncr, EncrAESGCM16, 256}},
	{"aes128gcm", Transform{TransformEncr, EncrAESGCM16, 128}},
	{"aes192gcm", Transform{TransformEncr, EncrAESGCM16, 192}},
	{"aes256gcm", Transform{TransformEncr, EncrAESGCM16, 256}},
	{"aes128gmac", Transform{TransformEncr, EncrNULLAuthAESGMAC, 128}},
	{"aes192gmac", Transform{TransformEncr, EncrNULLAuthAESGMAC, 192}},
	{"aes256gmac", Transform{TransformEncr, EncrNULLAuthAESGMAC, 256}},
	{"camellia128", Transform{TransformEncr, EncrCamelliaCBC, 128}},
	{"camellia192", Transform{TransformEncr, EncrCamelliaCBC, 192}},
	{"camellia256", Transform{TransformEncr, EncrCamelliaCBC, 256}},
	{"chacha20poly1305", Transform{TransformEncr, EncrChaCha20Poly1305, 0}},

	{"md5", Transform{TransformInteg, IntegHMACMD5, 0}},
	{"sha1", Transform{TransformInteg, IntegHMACSHA1, 0}},
	{"sha", Transform{TransformInteg, IntegHMACSHA1, 0}},
	{"sha256", Transform{TransformInteg, IntegHMACSHA256, 0}},
	{"sha384", Transform{TransformInteg, IntegHMACSHA384, 0}},
	{"sha512", Transform{TransformInteg, IntegHMACSHA512, 0}},
	{"aesxcbc", Transform{TransformInteg, IntegAESXCBC, 0}},
	{"aescmac", Transform{TransformInteg, IntegAESCMAC, 0}},

	{"prfmd5", Transform{TransformPRF, PRFHMACMD5, 0}},
	{"prfsha1", Transform{TransformPRF, PRFHMACSHA1, 0}},
	{"prfsha256", Transform{TransformPRF, PRFHMACSHA256, 0}},
	{"prfsha384", Transform{TransformPRF, PRFHMACSHA384, 0}},
	{"prfsha512", Transform{TransformPRF, PRFHMACSHA512, 0}},
	{"prfaesxcbc", Transform{TransformPRF, PRFAES128XCBC, 0}},
	{"prfaescmac", Transform{TransformPRF, PRFAES128CMAC, 0}},

	{"modpnone", Transform{TransformKE, uint16(GroupNone), 0}},
	{"modp768", Transform{TransformKE, uint16(GroupMODP768), 0}},
	{"modp1024", Transform{TransformKE, uint16(GroupMODP1024), 0}},
	{"modp1536", Transform{TransformKE, uint16(GroupMODP1536), 0}},
	{"modp2048", Transform{TransformKE, uint16(GroupMODP2048), 0}},
	{"modp3072", Transform{TransformKE, uint16(GroupMODP3072), 0}},
	{"modp4096", Transform{TransformKE, uint16(GroupMODP4096), 0}},
	{"modp6144", Transform{TransformKE, uint16(GroupMODP6144), 0}},
	{"modp8192", Transform{TransformKE, uint16(GroupMODP8192), 0}},
	{"ecp256", Transform{TransformKE, uint16(GroupECP256), 0}},
	{"ecp384", Transform{TransformKE, uint16(GroupECP384), 0}},
	{"ecp521", Transform{TransformKE, uint16(GroupECP521), 0}},
	{"modp1024s160", Transform{TransformKE, uint16(GroupMODP1024S160), 0}},
	{"modp2048s224", Transform{TransformKE, uint16(GroupMODP2048S224), 0}},
	{"modp2048s256", Transform{TransformKE, uint16(GroupMODP2048S256), 0}},
	{"ecp192", Transform{TransformKE, uint16(GroupECP192), 0}},
	{"ecp224", Transform{TransformKE, uint16(GroupECP224), 0}},
	{"ecp256bp", Transform{TransformKE, uint16(GroupBrainpoolP256), 0}},
	{"ecp384bp", Transform{TransformKE, uint16(GroupBrainpoolP384), 0}},
	{"ecp512bp", Transform{TransformKE, uint16(GroupBrainpoolP512), 0}},
	{"curve25519", Transform{TransformKE, uint16(GroupX25519), 0}},
	{"x25519", Transform{TransformKE, uint16(GroupX25519), 0}},
	{"curve448", Transform{TransformKE, uint16(GroupX448), 0}},
	{"x448", Transform{TransformKE, uint16(GroupX448), 0}},
	{"mlkem512", Transform{TransformKE, uint16(GroupMLKEM512), 0}},
	{"mlkem768", Transform{TransformKE, uint16(GroupMLKEM768), 0}},
	{"mlkem1024", Transform{TransformKE, uint16(GroupMLKEM1024), 0}},

	{"noesn", Transform{TransformESN, ESNNone, 0}},
	{"esn", Transform{TransformESN, ESNExtended, 0}},
}

// ParseProposals reads proposals as strongSwan's configuration spells them:
// separated by commas, their algorithms by dashes, as in
// aes256gcm16-prfsha384-ecp384,aes256-sha256-modp2048. As there, an IKE proposal
// without a PRF has that of its integrity algorithms, one for ESP has no extended
// sequence numbers unless told, and ke1_ to ke7_ go before additional key
// exchanges.
func ParseProposals(protocol ProtocolID, s string) ([]Proposal, error) {
	var ps []Proposal
	for i, one := range strings.Split(s, ",") {
		p, err := parseProposal(protocol, strings.ToLower(strings.TrimSpace(one)))
		if err != nil {
			return nil, fmt.Errorf("ikev2: proposal %d, %q: %w", i+1, one, err)
		}
		p.Number = uint8(i + 1)
		ps = append(ps, p)
		if i == 255 {
			return nil, errors.New("ikev2: more than 255 proposals can't be sent")
		}
	}
	return ps, nil
}

func parseProposal(protocol ProtocolID, s string) (Proposal, error) {
	p := Proposal{Protocol: protocol}
	for word := range strings.SplitSeq(s, "-") {
		t, ok := parseKeyword(word)
		if !ok {
			return p, fmt.Errorf("there is no algorithm %q: names are as in aes256-sha256-modp2048 or aes256gcm16-prfsha384-ecp384", word)
		}
		if !slices.Contains(p.Transforms, t) {
			p.Transforms = append(p.Transforms, t)
		}
	}
	has := func(kind TransformType) bool {
		return slices.ContainsFunc(p.Transforms, func(t Transform) bool { return t.Type == kind })
	}
	if protocol == ProtocolIKE {
		if !has(TransformPRF) {
			for _, t := range slices.Clone(p.Transforms) {
				if prf := prfOf(t); prf != 0 {
					p.Transforms = append(p.Transforms, Transform{TransformPRF, prf, 0})
				}
			}
		}
	} else if !has(TransformESN) {
		p.Transforms = append(p.Transforms, Transform{TransformESN, ESNNone, 0})
	}
	ciphers, combined := 0, 0
	for _, t := range p.Transforms {
		if t.Type == TransformEncr {
			ciphers++
			if aead(t.ID) {
				combined++
			}
		}
	}
	switch {
	case ciphers == 0:
		return p, errors.New("it needs an encryption algorithm")
	case combined != 0 && combined != ciphers:
		return p, errors.New("GCM, CCM and ChaCha20 need a proposal of their own, without CBC")
	case combined != 0:
		// Integrity algorithms only named the PRF.
		p.Transforms = slices.DeleteFunc(p.Transforms, func(t Transform) bool { return t.Type == TransformInteg })
	case !has(TransformInteg):
		return p, errors.New("it needs an integrity algorithm")
	}
	if protocol == ProtocolIKE {
		switch {
		case !has(TransformPRF):
			return p, errors.New("it needs a PRF, as in prfsha256")
		case !has(TransformKE):
			return p, errors.New("it needs a key exchange, as in ecp256")
		}
	}
	return p, nil
}

// parseKeyword returns the algorithm of one word.
func parseKeyword(word string) (Transform, bool) {
	extra := TransformType(0)
	if len(word) > 4 && word[:2] == "ke" && word[2] >= '1' && word[2] <= '7' && word[3] == '_' {
		extra, word = TransformAddKE1+TransformType(word[2]-'1'), word[4:]
	}
	for _, k := range keywords {
		if k.word != word {
			continue
		}
		if extra != 0 {
			if k.t.Type != TransformKE {
				return Transform{}, false
			}
			return Transform{extra, k.t.ID, 0}, true
		}
		return k.t, true
	}
	return Transform{}, false
}

// prfOf returns the PRF of the hash of an integrity algorithm, or 0.
func prfOf(t Transform) uint16 {
	if t.Type != TransformInteg {
		return 0
	}
	switch t.ID {
	case IntegHMACMD5:
		return PRFHMACMD5
	case IntegHMACSHA1:
		return PRFHMACSHA1
	case IntegHMACSHA256:
		return PRFHMACSHA256
	case IntegHMACSHA384:
		return PRFHMACSHA384
	case IntegHMACSHA512:
		return PRFHMACSHA512
	case IntegAESXCBC:
		return PRFAES128XCBC
	case IntegAESCMAC:
		return PRFAES128CMAC
	}
	return 0
}

// Keywords returns p as strongSwan's configuration spells it. It fails if p has an
// algorithm that has no word there.
func (p Proposal) Keywords() (string, error) {
	var words []string
	for _, t := range p.Transforms {
		if t.Type == TransformESN && t.ID == ESNNone || t.Type == TransformInteg && t.ID == IntegNone {
			continue
		}
		w, ok := t.keyword()
		if !ok {
			return "", fmt.Errorf("ikev2: strongSwan has no word for %v", t)
		}
		words = append(words, w)
	}
	return strings.Join(words, "-"), nil
}

func (t Transform) keyword() (string, bool) {
	prefix := ""
	if t.Type >= TransformAddKE1 && t.Type <= TransformAddKE7 {
		prefix = fmt.Sprintf("ke%d_", t.Type-TransformAddKE1+1)
		t.Type = TransformKE
	}
	for _, k := range keywords {
		if k.t == t {
			return prefix + k.word, true
		}
	}
	return "", false
}
