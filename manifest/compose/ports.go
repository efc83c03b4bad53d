package compose

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// door is an HTTP port of a service that becomes ingress.
type door struct {
	service string
	port    int32
	hosts   []string // from labels of Traefik; empty if the project's name makes the host
	key     string
}

// notHTTP are container ports whose protocol is known not to be HTTP. Any other published TCP port is taken for HTTP.
var notHTTP = map[uint32]string{ //nolint:gochecknoglobals // a constant table
	21: "FTP", 22: "SSH", 25: "SMTP", 53: "DNS", 110: "POP3", 143: "IMAP", 389: "LDAP", 445: "SMB", 465: "SMTP", 587: "SMTP", 636: "LDAP",
	514: "syslog", 853: "DNS", 993: "IMAP", 995: "POP3", 1433: "SQL Server", 1521: "Oracle", 1883: "MQTT", 2222: "SSH", 3306: "MySQL", 4222: "NATS", 5044: "Beats",
	5432: "PostgreSQL", 5671: "AMQP", 5672: "AMQP", 6379: "Redis", 6380: "Redis", 8883: "MQTT", 9042: "Cassandra", 9092: "Kafka",
	9229: "Node.js debugger", 9300: "Elasticsearch", 11211: "memcached", 25565: "Minecraft", 27017: "MongoDB", 51820: "WireGuard",
}

// ports converts the published ports of a service. A port that only the machine itself reaches stays private.
func (s *service) ports() {
	hosts, labelled := s.traefik()
	http := func(p types.ServicePortConfig) bool {
		return !s.otherProtocol(p) && !tlsPort(p) && !local(p.HostIP)
	}
	plain := slices.ContainsFunc(s.in.Ports, http)
	taken := map[uint32]bool{}
	for i, p := range s.in.Ports {
		key := "ports." + itoa(i)
		switch {
		case local(p.HostIP):
			s.say(Note, key, "port %d is for the machine itself, so it is not published: use caractrl port-forward", p.Target)
		case s.otherProtocol(p):
			s.openPort(key, p)
		case tlsPort(p) && plain:
			s.say(Note, key, "port %d is HTTPS, and the ingress sends HTTP to another port of the service", p.Target)
		case tlsPort(p):
			s.openPort(key, p)
		case !taken[p.Target] && labelled == 0:
			taken[p.Target] = true
			s.doors = append(s.doors, door{service: s.out.GetName(), port: int32(p.Target), hosts: hosts, key: s.key + "." + key}) //nolint:gosec // a port
		}
	}
	if labelled != 0 || (len(hosts) > 0 && !plain) {
		s.labelledDoor(hosts, labelled)
	}
}

// labelledDoor adds a door for a service whose hosts are in labels, and which publishes no port itself.
func (s *service) labelledDoor(hosts []string, port int32) {
	if port == 0 && len(s.in.Expose) == 1 {
		n, _ := strconv.ParseUint(s.in.Expose[0], 10, 16) // 0 means unknown
		port = int32(n)                                   //nolint:gosec // 16 bits
	}
	if port == 0 {
		s.say(Loss, "labels", "a label of Traefik gives a host, and no label gives the port: add ingress with the port of the service")
		return
	}
	s.doors = append(s.doors, door{service: s.out.GetName(), port: port, hosts: hosts, key: s.key + ".labels"})
}

// otherProtocol reports whether a port is not for HTTP: it is known for another protocol, or the service publishes the same
// number for UDP as well, as DNS, syslog and BitTorrent do. HTTPS is published for UDP, too, as HTTP/3.
func (s *service) otherProtocol(p types.ServicePortConfig) bool {
	return p.Protocol == "udp" || notHTTP[p.Target] != "" || p.Target != 443 && slices.ContainsFunc(s.in.Ports, func(o types.ServicePortConfig) bool {
		return o.Protocol == "udp" && o.Target == p.Target
	})
}

// tlsPort reports whether a port is for HTTPS. Programs that do not run as root choose numbers such as 8443 and 9443.
func tlsPort(p types.ServicePortConfig) bool {
	return p.Target%1000 == 443 || p.AppProtocol == "https"
}

// local reports whether an address is a loopback address.
func local(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	return err == nil && addr.IsLoopback()
}

// openPort makes a published port one of the ports of the project.
func (s *service) openPort(key string, p types.ServicePortConfig) {
	if p.Published == "" {
		s.say(Note, key, "port %d has no port of the machine, so it is not published: use caractrl port-forward", p.Target)
		return
	}
	published, err := strconv.ParseUint(p.Published, 10, 16)
	if err != nil || published == 0 {
		s.say(Loss, key, "port %s of the machine is not one number: write an entry for each port", p.Published)
		return
	}
	port := &carav1.ProjectPort{
		Name: dnsLabel(fmt.Sprintf("%s-%d", s.out.GetName(), published)), Port: int32(published), //nolint:gosec // 16 bits
		Target: &carav1.IngressTarget{Service: s.out.GetName(), Port: int32(p.Target)}, //nolint:gosec // a port
	}
	offer := p.Published
	if p.Protocol == "udp" {
		port.Name, port.Protocol, offer = dnsLabel(port.GetName()+"-udp"), api.ProtocolUDP, offer+"/udp"
	}
	if slices.ContainsFunc(s.to.GetSpec().GetPorts(), func(o *carav1.ProjectPort) bool {
		return o.GetPort() == port.GetPort() && o.GetProtocol() == port.GetProtocol()
	}) {
		s.say(Loss, key, "port %s of the machine is published twice; only the first is kept", offer)
		return
	}
	s.to.Spec.Ports = append(s.to.Spec.Ports, port)
	s.say(Note, key, "port %s becomes a port with the scope Internal: a node has to offer it (cara-agent --ports %s --ports-internal ADDRESS). Set scope: Public to open it to the internet", offer, offer)
}

var (
	hostRule = regexp.MustCompile(`Host\(([^)]*)\)`)
	quoted   = regexp.MustCompile("[`\"]([^`\"]+)[`\"]")
)

// traefik returns the hosts and the port that labels for Traefik give a service. The port is 0 if none does.
func (s *service) traefik() (hosts []string, port int32) {
	for _, name := range slices.Sorted(maps.Keys(s.in.Labels)) {
		value := s.in.Labels[name]
		switch {
		case strings.HasPrefix(name, "traefik.http.routers.") && strings.HasSuffix(name, ".rule"):
			for _, rule := range hostRule.FindAllStringSubmatch(value, -1) {
				for _, host := range quoted.FindAllStringSubmatch(rule[1], -1) {
					hosts = append(hosts, strings.ToLower(host[1]))
				}
			}
			if strings.Trim(hostRule.ReplaceAllString(value, ""), " |()") != "" {
				s.say(Loss, "labels."+name, "only hosts are converted, and not other parts of the rule")
			}
		case strings.HasPrefix(name, "traefik.http.services.") && strings.HasSuffix(name, ".loadbalancer.server.port"):
			n, _ := strconv.ParseUint(value, 10, 16) // 0 means unknown
			port = int32(n)                          //nolint:gosec // 16 bits
		case strings.HasPrefix(name, "traefik.http.middlewares."):
			s.say(Loss, "labels."+name, "middlewares have no equivalent")
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), port
}

// ingress makes the doors ingress. The only door, or the first one, gets the project's name as its host.
func (c *converter) ingress() {
	project, used := c.to.GetMetadata().GetName(), map[string]bool{}
	for i, d := range c.doors {
		hosts := d.hosts
		if len(hosts) == 0 {
			host := project
			if i > 0 {
				host = d.service + "-" + project
			}
			if used[host] {
				host = fmt.Sprintf("%s-%d-%s", d.service, d.port, project)
			}
			hosts = []string{host}
		}
		for _, host := range hosts {
			used[host] = true
			name := dnsLabel(strings.SplitN(host, ".", 2)[0])
			for n := 2; slices.ContainsFunc(c.to.GetSpec().GetIngress(), func(o *carav1.Ingress) bool { return o.GetName() == name }); n++ {
				name = dnsLabel(fmt.Sprintf("%s-%d", strings.SplitN(host, ".", 2)[0], n))
			}
			c.to.Spec.Ingress = append(c.to.Spec.Ingress, &carav1.Ingress{
				Name: name, Host: host, Target: &carav1.IngressTarget{Service: d.service, Port: d.port},
			})
			c.say(Note, d.key, fmt.Sprintf("port %d of service %s becomes the ingress host %s", d.port, d.service, host))
		}
	}
}
