package monitor

import (
	"context"
	"fmt"
	"strings"

	"datawatch/dwmon"
	"datawatch/internal/base"
)

// commands is the table of everything that can be typed (manual 4.4).
var commands []command

func init() { commands = commandTable() }

type ctxT = context.Context

// of adapts a monitor method for a database or a group.
func of(what string, fn func(c *Console, ctx ctxT, a args) error) func(*Console, ctxT, args) error {
	return func(c *Console, ctx ctxT, a args) error {
		return c.done(strings.TrimSpace(what+" "+strings.Trim(a.group+"."+a.db, ".")), fn(c, ctx, a))
	}
}

func mppOnly(*Console, ctxT, args) error {
	return base.Errorf(dwmon.CodeNotNormal, "this command is for MPP systems; this system is none")
}

func commandTable() []command {
	const group, optDB, db = "[group]", "[group[.]] [db]", "[group.]db"
	return []command{
		{"help", argNone, "", "print this help", func(c *Console, _ ctxT, _ args) error { c.help(); return nil }},
		{"exit", argNone, "", "leave the monitor", func(*Console, ctxT, args) error { return errExit }},
		{"quit", argNone, "", "", func(*Console, ctxT, args) error { return errExit }},
		{"q", argNone, "", "end show interval", func(c *Console, _ ctxT, _ args) error {
			if c.Every != nil {
				c.Every(0)
			}
			return nil
		}},
		{"show version", argNone, "", "version of this monitor", func(c *Console, _ ctxT, _ args) error {
			if c.JSON {
				c.json(map[string]string{"version": dwmon.Version})
			} else {
				fmt.Fprintln(c.Out, dwmon.Version)
			}
			return nil
		}},
		{"show global info", argNone, "", "state of every database", func(c *Console, _ ctxT, _ args) error { c.showGlobal(); return nil }},
		{"show database", argDB, db, "details of one database", func(c *Console, _ ctxT, a args) error { return c.showDatabase(a) }},
		{"show", argGroup, group, "details of all databases", func(c *Console, _ ctxT, a args) error { return c.show(a) }},
		{"show interval", argRest, "n", "repeat show every n seconds", func(c *Console, _ ctxT, a args) error { return c.interval(a.rest) }},
		{"show i", argRest, "n", "", func(c *Console, _ ctxT, a args) error { return c.interval(a.rest) }},
		{"list", argOptDB, "[[group.]db]", "configuration of watchers", func(c *Console, _ ctxT, a args) error { return c.list(a) }},
		{"show open info", argDB, db, "open history of a database", func(c *Console, _ ctxT, a args) error { return c.showOpen(a) }},
		{"show monitor", argOptDB, optDB, "monitors connected to a watcher", func(c *Console, _ ctxT, a args) error { return c.showMonitors(a) }},
		{"show arch send info", argDB, db, "how redo is sent to a standby", func(c *Console, _ ctxT, a args) error { return c.showSend(a) }},
		{"show apply stat", argDB, db, "how a standby replays redo", func(c *Console, _ ctxT, a args) error { return c.showApply(a) }},
		{"show state", argNone, "", "monitors of the monitor system", func(c *Console, _ ctxT, _ args) error { return c.showState() }},
		{"tip", argNone, "", "judge the whole system", func(c *Console, _ ctxT, _ args) error {
			r := c.M.Tip()
			c.report(r)
			return reportError(r, "tip")
		}},
		{"login", argRest, "[USER/PASSWORD]", "log in with a DBA user of the database", func(c *Console, ctx ctxT, a args) error { return c.login(ctx, a.rest) }},
		{"logout", argNone, "", "log out", func(c *Console, _ ctxT, _ args) error { c.M.Logout(); return c.done("logout", nil) }},
		{"get takeover time", argGroup, group, "time left until a takeover after a normal exit", func(c *Console, _ ctxT, a args) error { return c.takeoverTime(a) }},

		{"startup dmwatcher", argGroup, group, "turn the guarding of a group on", of("startup dmwatcher", func(c *Console, ctx ctxT, a args) error { return c.M.StartupWatch(ctx, a.group, "") })},
		{"startup dmwatcher database", argDB, db, "turn the guarding of one database on", of("startup dmwatcher", func(c *Console, ctx ctxT, a args) error { return c.M.StartupWatch(ctx, a.group, a.db) })},
		{"stop dmwatcher", argGroup, group, "turn the guarding of a group off (login)", of("stop dmwatcher", func(c *Console, ctx ctxT, a args) error { return c.M.StopWatch(ctx, a.group, "") })},
		{"stop dmwatcher database", argDB, db, "turn the guarding of one database off (login)", of("stop dmwatcher", func(c *Console, ctx ctxT, a args) error { return c.M.StopWatch(ctx, a.group, a.db) })},
		{"startup group", argGroup, group, "start all instances", of("startup group", func(c *Console, ctx ctxT, a args) error { return c.M.StartupGroup(ctx, a.group) })},
		{"stop group", argGroup, group, "exit all instances normally (login)", of("stop group", func(c *Console, ctx ctxT, a args) error { return c.M.StopGroup(ctx, a.group) })},
		{"kill group", argGroup, group, "kill all active instances", of("kill group", func(c *Console, ctx ctxT, a args) error { return c.M.KillGroup(ctx, a.group) })},
		{"startup database", argDB, db, "start one instance", of("startup database", func(c *Console, ctx ctxT, a args) error { return c.M.StartupDatabase(ctx, a.group, a.db) })},
		{"stop database", argDB, db, "exit one instance normally (login)", of("stop database", func(c *Console, ctx ctxT, a args) error { return c.M.StopDatabase(ctx, a.group, a.db) })},
		{"kill database", argDB, db, "kill one instance", of("kill database", func(c *Console, ctx ctxT, a args) error { return c.M.KillDatabase(ctx, a.group, a.db) })},
		{"open database", argDB, db, "open a database by force (login)", of("open database", func(c *Console, ctx ctxT, a args) error { return c.M.OpenDatabase(ctx, a.group, a.db) })},

		{"choose switchover", argGroup, group, "standbys that can be switched to primary", func(c *Console, _ ctxT, a args) error {
			l, err := c.M.ChooseSwitchover(a.group)
			return c.choices("can be switched to primary", l, err)
		}},
		{"switchover", argOptDB, optDB, "swap roles with the primary (login)", of("switchover", func(c *Console, ctx ctxT, a args) error { return c.M.Switchover(ctx, a.group, a.db) })},
		{"choose takeover", argGroup, group, "standbys that can take over", func(c *Console, _ ctxT, a args) error {
			l, err := c.M.ChooseTakeover(a.group, false)
			return c.choices("can take over", l, err)
		}},
		{"choose takeover force", argGroup, group, "standbys that can take over by force", func(c *Console, _ ctxT, a args) error {
			l, err := c.M.ChooseTakeover(a.group, true)
			return c.choices("can take over by force", l, err)
		}},
		{"takeover", argOptDB, optDB, "take over from the failed primary (login)", of("takeover", func(c *Console, ctx ctxT, a args) error { return c.M.Takeover(ctx, a.group, a.db, false) })},
		{"takeover force", argOptDB, optDB, "take over by force: may lose data and split the group (login)", of("takeover force", func(c *Console, ctx ctxT, a args) error { return c.M.Takeover(ctx, a.group, a.db, true) })},

		{"set", argRest, "group|database ...", "parameters, recover time, arch invalid (login)", func(c *Console, ctx ctxT, a args) error { return c.set(ctx, a.rest) }},
		{"clear", argRest, "group|database ...", "clear send or replay statistics (login)", func(c *Console, ctx ctxT, a args) error { return c.clear(ctx, a.rest) }},
		{"cancel", argRest, "database db until time", "", func(*Console, ctxT, args) error {
			return base.Errorf(dwmon.CodeNotNormal, "there is no asynchronous standby in this system")
		}},
		{"detach database", argDB, db, "take a standby out of the group (login)", of("detach database", func(c *Console, ctx ctxT, a args) error { return c.M.Detach(ctx, a.group, a.db) })},
		{"attach database", argDB, db, "bring a detached standby back (login)", of("attach database", func(c *Console, ctx ctxT, a args) error { return c.M.Attach(ctx, a.group, a.db) })},
		{"rejoin database", argDB, db, "let a split database rejoin once, giving up redo that the primary is without (login)", of("rejoin database", func(c *Console, ctx ctxT, a args) error { return c.M.RejoinDatabase(ctx, a.group, a.db) })},
		{"check recover", argDB, db, "conditions of an automatic recovery", func(c *Console, _ ctxT, a args) error {
			r, err := c.M.CheckRecover(a.group, a.db)
			return c.checked("check recover "+a.db, r, err)
		}},
		{"explain", argOptDB, optDB, "why nothing happens; of a database, everything that may happen to it", func(c *Console, _ ctxT, a args) error {
			return c.explain(a)
		}},
		{"check open", argDB, db, "conditions of an automatic open", func(c *Console, _ ctxT, a args) error {
			r, err := c.M.CheckOpen(a.group, a.db)
			return c.checked("check open "+a.db, r, err)
		}},

		{"show mpp", argNone, "", "", mppOnly},
		{"startup dmwatcher all", argNone, "", "", mppOnly},
		{"stop dmwatcher all", argNone, "", "", mppOnly},
		{"startup group all", argNone, "", "", mppOnly},
		{"stop group all", argNone, "", "", mppOnly},
		{"kill group all", argNone, "", "", mppOnly},
		{"check mppctl", argNone, "", "", mppOnly},
		{"recover mppctl", argNone, "", "", mppOnly},
	}
}

// reportError turns the code of a check into an error without a second text.
func reportError(r dwmon.Report, what string) error {
	if r.Code == 0 {
		return nil
	}
	text, _ := dwmon.ErrorText(r.Code)
	return base.Errorf(r.Code, "%s: %s", what, text)
}

func (c *Console) checked(what string, r dwmon.Report, err error) error {
	if err != nil {
		return err
	}
	c.report(r)
	return reportError(r, what)
}
