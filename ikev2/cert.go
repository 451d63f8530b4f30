package ikev2

// A Cert is the body of a CERT payload (RFC 7296 §3.6):
//
//	0  encoding (1)   1  data
type Cert struct {
	// Encoding says what Data is.
	Encoding CertEncoding
	// Data is the certificate; part of what was parsed.
	Data []byte
}

// ParseCert reads the body of a CERT payload, copying nothing.
func ParseCert(body []byte) (Cert, error) {
	if len(body) < 1 {
		return Cert{}, parseError(0, "certificate encoding", "payload is empty")
	}
	return Cert{Encoding: CertEncoding(body[0]), Data: body[1:]}, nil
}

// AppendCert appends the body of a CERT payload.
func AppendCert(b []byte, c Cert) []byte { return append(append(b, byte(c.Encoding)), c.Data...) }

// HashLen is the length of a hash in the payloads that name certificate
// authorities, and of a NAT detection: SHA-1's.
const HashLen = 20

// A CertRequest is the body of a CERTREQ payload (RFC 7296 §3.7):
//
//	0  encoding (1)   1  SHA-1 hashes of the keys of trusted authorities (20 each)
//
// Windows sends one hash for each root it trusts, which is what makes its
// IKE_AUTH so large.
type CertRequest struct {
	// Encoding is of the certificate wanted.
	Encoding CertEncoding
	// Authorities are the hashes, one after the other, if Encoding is one for
	// which they are hashes; part of what was parsed.
	Authorities []byte
}

// ParseCertRequest reads the body of a CERTREQ payload, copying nothing.
func ParseCertRequest(body []byte) (CertRequest, error) {
	if len(body) < 1 {
		return CertRequest{}, parseError(0, "certificate encoding", "payload is empty")
	}
	r := CertRequest{Encoding: CertEncoding(body[0]), Authorities: body[1:]}
	if r.hashed() && len(r.Authorities)%HashLen != 0 {
		return CertRequest{}, parseError(1, "certification authority", "%d octets aren't hashes of 20", len(r.Authorities))
	}
	return r, nil
}

func (r CertRequest) hashed() bool {
	switch r.Encoding {
	case CertX509, CertHashURL, CertHashURLBundle:
		return true
	}
	return false
}

// AppendCertRequest appends the body of a CERTREQ payload.
func AppendCertRequest(b []byte, r CertRequest) []byte {
	return append(append(b, byte(r.Encoding)), r.Authorities...)
}

// Len returns how many hashes there are.
func (r CertRequest) Len() int {
	if !r.hashed() {
		return 0
	}
	return len(r.Authorities) / HashLen
}

// Hash returns the hash at i, from 0 to Len-1.
func (r CertRequest) Hash(i int) []byte { return r.Authorities[i*HashLen : (i+1)*HashLen] }
