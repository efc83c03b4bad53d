package program

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/store/etcd"
)

// etcdFigures are the metrics of etcd's members.
type etcdFigures struct{ db *etcd.Store }

// etcdFigure is one metric with its value for a member. Values of members that are down are left out, except `up`.
type etcdFigure struct {
	desc  *prometheus.Desc
	value func(etcd.Member) (value float64, known bool)
}

func (etcdFigures) all() []etcdFigure {
	figure := func(name, help string, value func(etcd.Member) (float64, bool)) etcdFigure {
		return etcdFigure{prometheus.NewDesc("cara_etcd_"+name, help, []string{"endpoint"}, nil), value}
	}
	return []etcdFigure{
		figure("member_up", "1 if the member of etcd answers.", func(m etcd.Member) (float64, bool) { return number(m.Up), true }),
		figure("member_leader", "1 if the member is the leader.", func(m etcd.Member) (float64, bool) { return number(m.Leader), m.Up }),
		figure("database_bytes", "Size of the member's database file.", func(m etcd.Member) (float64, bool) { return float64(m.Size), m.Up }),
		figure("database_in_use_bytes", "Bytes of the database that have data. A defragmentation frees the others.", func(m etcd.Member) (float64, bool) { return float64(m.InUse), m.Up }),
		figure("database_quota_bytes", "Size of the database at which etcd takes no more writes.", func(m etcd.Member) (float64, bool) { return float64(m.Quota), m.Quota > 0 }),
		figure("alarms", "Number of problems that the member reports, such as a full database.", func(m etcd.Member) (float64, bool) { return float64(m.Alarms), m.Up }),
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (f etcdFigures) Describe(out chan<- *prometheus.Desc) {
	for _, one := range f.all() {
		out <- one.desc
	}
}

// Collect implements prometheus.Collector.
func (f etcdFigures) Collect(out chan<- prometheus.Metric) {
	members := f.db.Members()
	for _, one := range f.all() {
		for _, m := range members {
			if value, known := one.value(m); known {
				out <- prometheus.MustNewConstMetric(one.desc, prometheus.GaugeValue, value, m.Endpoint)
			}
		}
	}
}
