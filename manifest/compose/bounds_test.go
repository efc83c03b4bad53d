package compose

import (
	"fmt"
	"strings"
	"testing"
)

// list returns the texts of 0 to n-1, one after the other.
func list(n int, text func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(text(i))
	}
	return b.String()
}

// before returns the names of the services before number i.
func before(i int) string {
	names := make([]string, i)
	for j := range names {
		names[j] = fmt.Sprintf("s%d", j)
	}
	return strings.Join(names, ", ")
}

// TestFilesThatCostTooMuch has small files on which the library works for minutes, or does not end.
func TestFilesThatCostTooMuch(t *testing.T) {
	image := "services:\n  a:\n    image: a\n    restart: always\n"
	for name, c := range map[string]struct{ yaml, want string }{
		"keys":               {image + "    labels:\n" + list(30_000, func(i int) string { return fmt.Sprintf("      l%d: x\n", i) }), "more than 20000 values"},
		"nested defaults":    {image + "    environment: {X: '" + strings.Repeat("${A:-", 30_000) + strings.Repeat("}", 30_000) + "'}\n", "more than 200 variables"},
		"defaults":           {image + "    environment: {X: '" + strings.Repeat("${A:-x}", 30_000) + "'}\n", "more than 200 variables"},
		"after a dollar":     {image + "    environment: {X: '" + strings.Repeat("$$${A:-x}", 300) + "'}\n", "more than 200 variables"},
		"defaults of a file": {image + "    env_file: defaults.env\n", "more than 200 variables"},
		"many defaults":      {image + "    environment:\n" + list(150, func(i int) string { return fmt.Sprintf("      X%d: '%s'\n", i, strings.Repeat("${A:-x}", 150)) }), "more than 20000 variables"},
		"keys of two files":  {"include: [keys.yaml]\n" + image + "    labels:\n" + list(6_000, func(i int) string { return fmt.Sprintf("      l%d: x\n", i) }), "more than 20000 values"},
		"ports":              {image + "    ports:\n" + list(50, func(int) string { return "      - \"1-65535\"\n" }), "more than 1000 ports"},
		"ports of a host":    {image + "    ports: ['127.0.0.1:1-65535:1-65535/udp']\n", "more than 1000 ports"},
		"ports with zeros":   {image + "    ports: ['000001-65535']\n", "more than 1000 ports"},
		"ports in capitals":  {image + "    ports: ['1-65535/UDP']\n", "more than 1000 ports"},
		"no protocol":        {image + "    ports: ['1-65535/']\n", "more than 1000 ports"},
		"ports of a value":   {image + "    ports: ['${PORTS}']\n", "more than 1000 ports"},
		"a chain of extends": {"services:\n  s0: {image: a}\n" + list(600, func(i int) string { return fmt.Sprintf("  s%d: {extends: s%d}\n", i+1, i) }), "more than 200 services"},
		"a chain that grows": {"services:\n  s0: {image: a}\n" + list(150, func(i int) string {
			return fmt.Sprintf("  s%d:\n    extends: s%d\n    environment:\n%s", i+1, i, list(40, func(j int) string { return fmt.Sprintf("      V%d_%d: x\n", i, j) }))
		}), "150 services extend others"},
		"merged services":   {"x-a: &a\n" + list(201, func(i int) string { return fmt.Sprintf("  s%d: {image: a}\n", i) }) + "services: {<<: [*a]}\n", "more than 200 services"},
		"extended services": {"services: {a: {extends: {file: many.yaml, service: b0}}}\n", "more than 200 services"},
		"depends_on":        {"services:\n" + list(60, func(i int) string { return fmt.Sprintf("  s%d: {image: a, depends_on: [%s]}\n", i, before(i)) }), "more than 20000 ways"},
		"links":             {"services:\n" + list(60, func(i int) string { return fmt.Sprintf("  s%d: {image: a, links: [%s]}\n", i, before(i)) }), "more than 20000 ways"},
		"conditions": {"services:\n" + list(60, func(i int) string {
			return fmt.Sprintf("  s%d: {image: a, depends_on: {%s}}\n", i, strings.Join(strings.Fields(list(i, func(j int) string { return fmt.Sprintf("s%d:_{condition:_service_started}, ", j) })), " "))
		}), "more than 20000 ways"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := texts{
				"apps/shop/compose.yaml": strings.ReplaceAll(c.yaml, ":_", ": "), "apps/shop/.env": "PORTS=1-65535\n",
				"apps/shop/keys.yaml":    "services:\n  b:\n    image: b\n    labels:\n" + list(6_000, func(i int) string { return fmt.Sprintf("      l%d: x\n", i) }),
				"apps/shop/defaults.env": "X=" + strings.Repeat("${A:-", 30_000) + strings.Repeat("}", 30_000) + "\n",
				"apps/shop/many.yaml":    "services:\n" + list(201, func(i int) string { return fmt.Sprintf("  b%d: {image: b}\n", i) }),
			}
			r := convertTree(t, TreeOptions{Tree: tree})
			if !strings.Contains(all(r), c.want) || r.Worst() < Refusal {
				t.Errorf("findings %.2000s; want %q", all(r), c.want)
			}
		})
	}
}

// TestLargeFilesThatAreWanted are as large as files that people write.
func TestLargeFilesThatAreWanted(t *testing.T) {
	image := "services:\n  a:\n    image: a\n    restart: always\n"
	for name, yaml := range map[string]string{
		"ports for media": image + "    expose: [1-65535]\n    ports: ['10000-10049:10000-10049/udp']\n    environment: {RANGE: 1-65535}\n",
		"a chain": "services:\n  s0: {image: a, restart: always}\n" + list(40, func(i int) string {
			return fmt.Sprintf("  s%d: {image: a, restart: always, depends_on: [s%d]}\n", i+1, i)
		}),
		"a script": image + "    command: ['sh', '-c', '" + strings.Repeat("echo $${A}; ", 300) + "']\n    environment: {X: '" + strings.Repeat("${A:-x}", 100) + "'}\n",
		"a common base": "services:\n  s0: {image: a, restart: always, labels: {a: b}}\n" + list(60, func(i int) string {
			return fmt.Sprintf("  s%d: {extends: {service: s0}, environment: {A: b, C: d}, volumes: ['data:/v'], depends_on: [s0]}\n", i+1)
		}) + "volumes: {data: {}}\n",
		"many environment": "services:\n" + list(80, func(i int) string {
			return fmt.Sprintf("  s%d:\n    image: a\n    restart: always\n    environment:\n%s", i, list(50, func(j int) string { return fmt.Sprintf("      V%d: x\n", j) }))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			if r := convertTree(t, TreeOptions{Tree: texts{"apps/shop/compose.yaml": yaml}}); r.Worst() >= Refusal {
				t.Errorf("findings:\n%s", all(r))
			}
		})
	}
}
