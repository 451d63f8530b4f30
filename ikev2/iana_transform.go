package ikev2

import "fmt"

// A TransformType says which part of a suite a Transform is.
type TransformType uint8

// Transform types (RFC 7296 §3.3.2, RFC 9370, RFC 9838).
const (
	TransformEncr   TransformType = 1
	TransformPRF    TransformType = 2
	TransformInteg  TransformType = 3
	TransformKE     TransformType = 4
	TransformESN    TransformType = 5
	TransformAddKE1 TransformType = 6
	TransformAddKE2 TransformType = 7
	TransformAddKE3 TransformType = 8
	TransformAddKE4 TransformType = 9
	TransformAddKE5 TransformType = 10
	TransformAddKE6 TransformType = 11
	TransformAddKE7 TransformType = 12
	TransformKWA    TransformType = 13
	TransformGCAuth TransformType = 14
)

var transformTypeNames = [...]string{
	"ENCR", "PRF", "INTEG", "KE", "ESN", "ADDKE1", "ADDKE2", "ADDKE3", "ADDKE4", "ADDKE5", "ADDKE6", "ADDKE7", "KWA", "GCAUTH",
}

func (t TransformType) String() string {
	if s := nameFrom(transformTypeNames[:], int(t), 1); s != "" {
		return s
	}
	return fmt.Sprintf("transform type %d", uint8(t))
}

// keyExchange reports whether IDs of the type are Groups.
func (t TransformType) keyExchange() bool {
	return t == TransformKE || t >= TransformAddKE1 && t <= TransformAddKE7
}

// A Group is a key exchange method: transform type 4 and 6 to 12, and the group
// number of a Key Exchange payload.
type Group uint16

// Key exchange methods (RFC 3526, 5903, 5114, 6954, 8031, 9385, and
// draft-ietf-ipsecme-ikev2-mlkem).
const (
	GroupNone          Group = 0
	GroupMODP768       Group = 1
	GroupMODP1024      Group = 2
	GroupMODP1536      Group = 5
	GroupMODP2048      Group = 14
	GroupMODP3072      Group = 15
	GroupMODP4096      Group = 16
	GroupMODP6144      Group = 17
	GroupMODP8192      Group = 18
	GroupECP256        Group = 19
	GroupECP384        Group = 20
	GroupECP521        Group = 21
	GroupMODP1024S160  Group = 22
	GroupMODP2048S224  Group = 23
	GroupMODP2048S256  Group = 24
	GroupECP192        Group = 25
	GroupECP224        Group = 26
	GroupBrainpoolP224 Group = 27
	GroupBrainpoolP256 Group = 28
	GroupBrainpoolP384 Group = 29
	GroupBrainpoolP512 Group = 30
	GroupX25519        Group = 31
	GroupX448          Group = 32
	GroupGOST2012P256  Group = 33
	GroupGOST2012P512  Group = 34
	GroupMLKEM512      Group = 35
	GroupMLKEM768      Group = 36
	GroupMLKEM1024     Group = 37
)

// groups by number: name, and the length of a public value in octets.
var groups = [...]struct {
	name   string
	public int
}{
	GroupNone:          {"NONE", 0},
	GroupMODP768:       {"MODP_768", 96},
	GroupMODP1024:      {"MODP_1024", 128},
	GroupMODP1536:      {"MODP_1536", 192},
	GroupMODP2048:      {"MODP_2048", 256},
	GroupMODP3072:      {"MODP_3072", 384},
	GroupMODP4096:      {"MODP_4096", 512},
	GroupMODP6144:      {"MODP_6144", 768},
	GroupMODP8192:      {"MODP_8192", 1024},
	GroupECP256:        {"ECP_256", 64},
	GroupECP384:        {"ECP_384", 96},
	GroupECP521:        {"ECP_521", 132},
	GroupMODP1024S160:  {"MODP_1024_160", 128},
	GroupMODP2048S224:  {"MODP_2048_224", 256},
	GroupMODP2048S256:  {"MODP_2048_256", 256},
	GroupECP192:        {"ECP_192", 48},
	GroupECP224:        {"ECP_224", 56},
	GroupBrainpoolP224: {"BRAINPOOL_P224R1", 56},
	GroupBrainpoolP256: {"BRAINPOOL_P256R1", 64},
	GroupBrainpoolP384: {"BRAINPOOL_P384R1", 96},
	GroupBrainpoolP512: {"BRAINPOOL_P512R1", 128},
	GroupX25519:        {"CURVE_25519", 32},
	GroupX448:          {"CURVE_448", 56},
	GroupGOST2012P256:  {"GOST3410_2012_256", 64},
	GroupGOST2012P512:  {"GOST3410_2012_512", 128},
	GroupMLKEM512:      {"ML_KEM_512", 800},
	GroupMLKEM768:      {"ML_KEM_768", 1184},
	GroupMLKEM1024:     {"ML_KEM_1024", 1568},
}

// PublicLen returns how long an initiator's public value of the group is in
// octets, or 0 if it isn't known here. A responder's ML-KEM ciphertext has
// another length.
func (g Group) PublicLen() int {
	if int(g) < len(groups) {
		return groups[g].public
	}
	return 0
}

func (g Group) String() string { return transformName(TransformKE, uint16(g)) }

// Encryption algorithms (RFC 7296 §3.3.2, 3686, 4309, 4106, 4543, 5529, 7634,
// 8750, 9227).
const (
	EncrDESIV64             uint16 = 1
	EncrDES                 uint16 = 2
	Encr3DES                uint16 = 3
	EncrRC5                 uint16 = 4
	EncrIDEA                uint16 = 5
	EncrCAST                uint16 = 6
	EncrBlowfish            uint16 = 7
	Encr3IDEA               uint16 = 8
	EncrDESIV32             uint16 = 9
	EncrNULL                uint16 = 11
	EncrAESCBC              uint16 = 12
	EncrAESCTR              uint16 = 13
	EncrAESCCM8             uint16 = 14
	EncrAESCCM12            uint16 = 15
	EncrAESCCM16            uint16 = 16
	EncrAESGCM8             uint16 = 18
	EncrAESGCM12            uint16 = 19
	EncrAESGCM16            uint16 = 20
	EncrNULLAuthAESGMAC     uint16 = 21
	EncrCamelliaCBC         uint16 = 23
	EncrCamelliaCTR         uint16 = 24
	EncrCamelliaCCM8        uint16 = 25
	EncrCamelliaCCM12       uint16 = 26
	EncrCamelliaCCM16       uint16 = 27
	EncrChaCha20Poly1305    uint16 = 28
	EncrAESCCM8IIV          uint16 = 29
	EncrAESGCM16IIV         uint16 = 30
	EncrChaCha20Poly1305IIV uint16 = 31
	EncrKuznyechikMGM       uint16 = 32
	EncrMagmaMGM            uint16 = 33
	EncrKuznyechikMGMMAC    uint16 = 34
	EncrMagmaMGMMAC         uint16 = 35
)

var encrNames = [...]string{
	EncrDESIV64: "DES_IV64", EncrDES: "DES", Encr3DES: "3DES", EncrRC5: "RC5", EncrIDEA: "IDEA", EncrCAST: "CAST",
	EncrBlowfish: "BLOWFISH", Encr3IDEA: "3IDEA", EncrDESIV32: "DES_IV32", EncrNULL: "NULL", EncrAESCBC: "AES_CBC",
	EncrAESCTR: "AES_CTR", EncrAESCCM8: "AES_CCM_8", EncrAESCCM12: "AES_CCM_12", EncrAESCCM16: "AES_CCM_16",
	EncrAESGCM8: "AES_GCM_8", EncrAESGCM12: "AES_GCM_12", EncrAESGCM16: "AES_GCM_16",
	EncrNULLAuthAESGMAC: "NULL_AUTH_AES_GMAC", EncrCamelliaCBC: "CAMELLIA_CBC", EncrCamelliaCTR: "CAMELLIA_CTR",
	EncrCamelliaCCM8: "CAMELLIA_CCM_8", EncrCamelliaCCM12: "CAMELLIA_CCM_12", EncrCamelliaCCM16: "CAMELLIA_CCM_16",
	EncrChaCha20Poly1305: "CHACHA20_POLY1305", EncrAESCCM8IIV: "AES_CCM_8_IIV", EncrAESGCM16IIV: "AES_GCM_16_IIV",
	EncrChaCha20Poly1305IIV: "CHACHA20_POLY1305_IIV", EncrKuznyechikMGM: "KUZNYECHIK_MGM_KTREE",
	EncrMagmaMGM: "MAGMA_MGM_KTREE", EncrKuznyechikMGMMAC: "KUZNYECHIK_MGM_MAC_KTREE", EncrMagmaMGMMAC: "MAGMA_MGM_MAC_KTREE",
}

// Pseudorandom functions (RFC 7296 §3.3.2, 4434, 4868, 4615, 9385).
const (
	PRFHMACMD5         uint16 = 1
	PRFHMACSHA1        uint16 = 2
	PRFHMACTiger       uint16 = 3
	PRFAES128XCBC      uint16 = 4
	PRFHMACSHA256      uint16 = 5
	PRFHMACSHA384      uint16 = 6
	PRFHMACSHA512      uint16 = 7
	PRFAES128CMAC      uint16 = 8
	PRFHMACStreebog512 uint16 = 9
)

var prfNames = [...]string{
	PRFHMACMD5: "PRF_HMAC_MD5", PRFHMACSHA1: "PRF_HMAC_SHA1", PRFHMACTiger: "PRF_HMAC_TIGER",
	PRFAES128XCBC: "PRF_AES128_XCBC", PRFHMACSHA256: "PRF_HMAC_SHA2_256", PRFHMACSHA384: "PRF_HMAC_SHA2_384",
	PRFHMACSHA512: "PRF_HMAC_SHA2_512", PRFAES128CMAC: "PRF_AES128_CMAC", PRFHMACStreebog512: "PRF_HMAC_STREEBOG_512",
}

// Integrity algorithms (RFC 7296 §3.3.2, 4595, 4494, 4543, 4868).
const (
	IntegNone        uint16 = 0
	IntegHMACMD5     uint16 = 1
	IntegHMACSHA1    uint16 = 2
	IntegDESMAC      uint16 = 3
	IntegKPDKMD5     uint16 = 4
	IntegAESXCBC     uint16 = 5
	IntegHMACMD5128  uint16 = 6
	IntegHMACSHA1160 uint16 = 7
	IntegAESCMAC     uint16 = 8
	IntegAES128GMAC  uint16 = 9
	IntegAES192GMAC  uint16 = 10
	IntegAES256GMAC  uint16 = 11
	IntegHMACSHA256  uint16 = 12
	IntegHMACSHA384  uint16 = 13
	IntegHMACSHA512  uint16 = 14
)

var integNames = [...]string{
	IntegNone: "NONE", IntegHMACMD5: "HMAC_MD5_96", IntegHMACSHA1: "HMAC_SHA1_96", IntegDESMAC: "DES_MAC",
	IntegKPDKMD5: "KPDK_MD5", IntegAESXCBC: "AES_XCBC_96", IntegHMACMD5128: "HMAC_MD5_128",
	IntegHMACSHA1160: "HMAC_SHA1_160", IntegAESCMAC: "AES_CMAC_96", IntegAES128GMAC: "AES_128_GMAC",
	IntegAES192GMAC: "AES_192_GMAC", IntegAES256GMAC: "AES_256_GMAC", IntegHMACSHA256: "HMAC_SHA2_256_128",
	IntegHMACSHA384: "HMAC_SHA2_384_192", IntegHMACSHA512: "HMAC_SHA2_512_256",
}

// Sequence numbers of ESP and AH (RFC 7296 §3.3.2, RFC 9827).
const (
	ESNNone        uint16 = 0
	ESNExtended    uint16 = 1
	ESNUnspecified uint16 = 2
)

var esnNames = [...]string{"NO_EXT_SEQ", "EXT_SEQ", "UNSPECIFIED_SEQ"}

var keyWrapNames = [...]string{"", "KW_5649_128", "KW_5649_192", "KW_5649_256", "KW_ARX"}

var groupAuthNames = [...]string{"", "IMPLICIT", "DIGITAL_SIGNATURE"}

// transformName returns the name of an algorithm as strongSwan's logs have it:
// IANA's without ENCR_ and AUTH_, and shorter ones for groups.
func transformName(t TransformType, id uint16) string {
	s := ""
	switch {
	case t == TransformEncr:
		s = nameFrom(encrNames[:], int(id), 0)
	case t == TransformPRF:
		s = nameFrom(prfNames[:], int(id), 0)
	case t == TransformInteg:
		s = nameFrom(integNames[:], int(id), 0)
	case t.keyExchange():
		if int(id) < len(groups) {
			s = groups[id].name
		}
	case t == TransformESN:
		s = nameFrom(esnNames[:], int(id), 0)
	case t == TransformKWA:
		s = nameFrom(keyWrapNames[:], int(id), 0)
	case t == TransformGCAuth:
		s = nameFrom(groupAuthNames[:], int(id), 0)
	}
	if s == "" {
		return fmt.Sprintf("%v %d", t, id)
	}
	return s
}
