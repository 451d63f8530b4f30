/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
 *
 * Both ends of the speed tests: a generator that is run again and again on one frame,
 * which it gives another flow's addresses each time; and a sink that counts, and may
 * send back. Built by testdata/generate.sh.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct settings {
	__u32 flows;
	__u32 device; /* to send by */
	__u32 bounce; /* the sink sends back */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__be32 spi;
} __attribute__((packed));

/* Flow i is of 10.(64 + i / 65536).(i / 256 % 256).(i % 256), port 1024 + i % 60000. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	__u32 zero = 0, i, was, now;
	struct settings *s = bpf_map_lookup_elem(&setting, &zero);

	if (!s || !s->flows || (void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	i = bpf_get_prandom_u32() % s->flows;
	was = f->ip.saddr;
	now = bpf_htonl(0x0a400000 + i);
	f->ip.check = ~folded((__u16)~f->ip.check + (__u16)~was + (__u16)~(was >> 16) + (__u16)now + (now >> 16));
	f->ip.saddr = now;
	f->udp.source = bpf_htons(1024 + i % 60000);
	return bpf_redirect(s->device, 0);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	__u32 zero = 0, a;
	struct settings *s = bpf_map_lookup_elem(&setting, &zero);
	__u64 *n = bpf_map_lookup_elem(&counts, &zero);
	unsigned char mac[ETH_ALEN];
	__be16 port;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end || f->eth.h_proto != bpf_htons(ETH_P_IP) || f->ip.protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (n)
		*n += 1;
	if (!s || !s->bounce)
		return XDP_DROP;
	__builtin_memcpy(mac, f->eth.h_dest, ETH_ALEN);
	__builtin_memcpy(f->eth.h_dest, f->eth.h_source, ETH_ALEN);
	__builtin_memcpy(f->eth.h_source, mac, ETH_ALEN);
	a = f->ip.saddr;
	f->ip.saddr = f->ip.daddr;
	f->ip.daddr = a;
	port = f->udp.source;
	f->udp.source = f->udp.dest;
	f->udp.dest = port;
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

char licence[] SEC("license") = "Dual BSD/GPL";
