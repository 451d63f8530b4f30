package tcp_test

const spliceable = true
