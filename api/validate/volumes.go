package validate

import (
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// volume checks the fields of a volume that depend on its type.
func (e projectErrors) volume(at string, v *carav1.ProjectVolume) {
	if v.GetReclaim() != "" && v.GetType() != api.VolumeManaged {
		e.add(at+".reclaim", "is only for volumes of type %s; remove it, or set the type", api.VolumeManaged)
	}
	switch {
	case v.GetType() == api.VolumeHost && v.GetHost() == "":
		e.add(at+".host", "is missing; name a host volume that a node offers (cara-agent --host-volume NAME=PATH)")
	case v.GetType() != api.VolumeHost && v.GetHost() != "":
		e.add(at+".host", "is only for volumes of type %s; remove it, or set the type", api.VolumeHost)
	default:
		e.dnsLabel(at+".host", v.GetHost())
	}
}

const maxHookTimeout = 24 * time.Hour

// backup checks spec.backup and spec.onNodeLoss.
func (e projectErrors) backup(s *carav1.ProjectSpec, x specIndex) {
	b := s.GetBackup()
	if b == nil && s.GetOnNodeLoss() == api.NodeLossRestore {
		e.add("spec.onNodeLoss", "is %s, which needs backups to restore; set spec.backup, or remove it", api.NodeLossRestore)
	}
	if b == nil {
		return
	}
	if len(api.ManagedVolumes(s)) == 0 {
		e.add("spec.backup", "is only for projects with volumes of type %s; remove it, or set the type of a volume", api.VolumeManaged)
	}
	e.dnsLabel("spec.backup.secretRef", b.GetSecretRef())
	if sch := b.GetSchedule(); sch != nil {
		if _, err := syntax.ParseSchedule(sch); err != nil {
			e.add("spec.backup.schedule."+err.Field, "%s", err.Problem)
		}
	}
	if k := b.GetKeep(); k != nil && k.GetLast()+k.GetDaily()+k.GetWeekly()+k.GetMonthly() == 0 {
		e.add("spec.backup.keep", "keeps no snapshot; set last, daily, weekly or monthly, or remove it to keep all")
	}
	for name, hook := range map[string]*carav1.BackupHook{"before": b.GetHooks().GetBefore(), "after": b.GetHooks().GetAfter()} {
		if hook == nil {
			continue
		}
		at := "spec.backup.hooks." + name
		if _, ok := x.services[hook.GetService()]; !ok && hook.GetService() != "" {
			e.add(at+".service", "no service is named %q; name one of %s", text.Short(hook.GetService()), known(x.services))
		}
		e.duration(at+".timeout", hook.GetTimeout(), time.Second, maxHookTimeout)
	}
}
