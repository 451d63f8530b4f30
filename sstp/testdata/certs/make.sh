#!/bin/sh
# Makes the files of this folder anew, with OpenSSL 3.
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 365 -subj "/CN=Test Root" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj "/CN=vpn.example.com" 2>/dev/null
printf 'subjectAltName=DNS:vpn.example.com\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\ncrlDistributionPoints=URI:ldap:///CN=x\n' > ext
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -days 90 -extfile ext -out leaf.pem 2>/dev/null
openssl x509 -in leaf.pem -outform DER -out leaf.cer
cat ca.pem leaf.pem > wrong.pem
openssl crl2pkcs7 -nocrl -certfile wrong.pem -out b64.p7b
openssl crl2pkcs7 -nocrl -certfile wrong.pem -outform DER -out der.p7b
openssl pkcs12 -export -in leaf.pem -inkey leaf.key -certfile ca.pem -passout pass:hush -out new.pfx
openssl pkcs12 -export -legacy -in leaf.pem -inkey leaf.key -certfile ca.pem -passout pass:hush -out old.pfx
openssl pkcs12 -export -in leaf.pem -inkey leaf.key -passout pass: -out empty.pfx
rm -f ext leaf.csr leaf.key ca.key ca.srl
